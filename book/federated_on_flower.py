"""The clients of the notebook on federated aggregation, on Flower's simulation engine.

    pip install -e ".[flower]"
    python book/federated_on_flower.py --kind sensor --rounds 10

The network, the worlds and the local steps are the notebook's own cells.  Flower gives
the clients to workers, on one machine or on a Ray cluster, and averages with its
strategy FedAvg.  At the end the parameters are compared with the notebook's loop.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import numpy as np
import torch
from torch.nn import functional as F

from lnlib.data import load, split
from lnlib.norms import normalise

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "federated_aggregation.ipynb"
CELLS = (
    *("data", "lenses", "world", "network", "norm-of", "forward", "server"),
    *("is-averaged", "cell", "set-up", "local-steps", "batch-source", "aggregate"),
    *("fit", "measures", "score"),
)
SIZES = {"CLIENTS": 10, "WIDTH": 32, "BATCH": 16, "LOCAL_STEPS": 8, "EPS": 1e-5}


def notebook_names(base: int = 0) -> dict[str, Any]:
    """Return what the notebook's cells define; `base` fixes its validation digits."""
    names: dict[str, Any] = {
        "itertools": itertools, "NamedTuple": NamedTuple, "np": np, "torch": torch,
        "F": F, "load": load, "split": split, "normalise": normalise,
        "settings": {"sensor": 1.0, "contrast": 4.0}, "base": base, "rounds": 12,
        **SIZES,
    }  # fmt: skip
    sources = {c.id: c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells}
    for cell in CELLS:
        exec(compile(sources[cell], cell, "exec"), names)
    return names


def local_training(
    names: dict[str, Any],
    kind: str,
    seed: int,
    client: int,
    arrays: Sequence[np.ndarray],
    done: int,
    lr: float,
) -> tuple[list[np.ndarray], int]:
    """Train one client for one round after `done` rounds; return arrays and n.

    `arrays` are the parameters (a, b) in the order of the notebook's `draw`.
    """
    cell = names["Cell"](kind, "average", lr=lr)
    _, data, _, _ = names["set_up"]([cell], [seed])
    stream = torch.Generator().manual_seed(10**9 + seed)
    replica = torch.zeros(SIZES["CLIENTS"], dtype=int), torch.arange(SIZES["CLIENTS"])
    steps = SIZES["LOCAL_STEPS"]
    every = names["batch_source"](data, replica, [stream], 1)
    own = itertools.islice(every, done * steps, (done + 1) * steps)
    batches = [(x[client, None], y[client, None]) for x, y in own]
    keys = names["draw"](seed)
    P = {k: torch.tensor(v)[None] for k, v in zip(keys, arrays, strict=True)}
    rate, yes = torch.full((1, 1, 1), lr), torch.ones(1, 1, 1, dtype=bool)
    norms, running = [("layer", slice(None))], {"1": [], "2": []}
    P = names["local_steps"](P, rate, yes, ~yes, norms, running, batches)
    return [v[0].numpy() for v in P.values()], int(data[2][0, client])


def balanced_accuracy(
    names: dict[str, Any], kind: str, seed: int, arrays: Sequence[np.ndarray]
) -> float:
    """Return the mean over clients of the averaged network's balanced accuracy."""
    cell = names["Cell"](kind, "average")
    worlds, _, _, where = names["set_up"]([cell], [seed])
    keys = names["draw"](seed)
    shape = SIZES["CLIENTS"], -1, -1
    P = {k: torch.tensor(v).expand(shape) for k, v in zip(keys, arrays, strict=True)}
    fitted = P, {"1": [], "2": []}, worlds, where
    return float(names["score"](fitted, [cell], "test")[0, 0, 0])


def main() -> None:
    """Run the simulation and compare it with the notebook's loop."""
    from flwr.client import ClientApp, NumPyClient
    from flwr.common import ndarrays_to_parameters
    from flwr.server import ServerApp, ServerAppComponents, ServerConfig
    from flwr.server.strategy import FedAvg
    from flwr.simulation import run_simulation

    kinds = ("iid", "contrast", "sensor", "dirichlet", "permuted")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=kinds, default="sensor")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.3)
    told = parser.parse_args()
    names, seen = notebook_names(), []
    start = [v.numpy() for v in names["draw"](told.seed).values()]

    class Client(NumPyClient):
        def __init__(self, number: int) -> None:
            self.number = number

        def fit(self, parameters: Any, config: dict[str, Any]) -> Any:
            torch.set_num_threads(1)
            done = int(config["round"]) - 1
            arrays, n = local_training(
                notebook_names(), told.kind, told.seed, self.number, parameters, done,
                told.lr,
            )  # fmt: skip
            return arrays, n, {}

    def client_of(context: Any) -> Any:
        return Client(int(context.node_config["partition-id"])).to_client()

    def judge(done: int, arrays: Any, config: Any) -> Any:
        seen.append(arrays)
        accuracy = balanced_accuracy(names, told.kind, told.seed, arrays)
        print(f"round {done}: balanced accuracy {accuracy:.3f}", flush=True)
        return 1 - accuracy, {"accuracy": accuracy}

    def server_of(context: Any) -> Any:
        strategy = FedAvg(
            fraction_fit=1.0, fraction_evaluate=0.0, evaluate_fn=judge,
            min_fit_clients=SIZES["CLIENTS"], min_available_clients=SIZES["CLIENTS"],
            on_fit_config_fn=lambda done: {"round": done},
            initial_parameters=ndarrays_to_parameters(start),
        )  # fmt: skip
        return ServerAppComponents(
            strategy=strategy, config=ServerConfig(num_rounds=told.rounds)
        )

    run_simulation(
        server_app=ServerApp(server_fn=server_of),
        client_app=ClientApp(client_fn=client_of),
        num_supernodes=SIZES["CLIENTS"],
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    cell = names["Cell"](told.kind, "average", lr=told.lr)
    P, *_ = names["fit"]([cell], [told.seed], told.rounds)
    gap = max(
        float(np.abs(a - P[k][0].numpy()).max())
        for k, a in zip(P, seen[-1], strict=True)
        if not k.startswith("scalar")
    )
    print(f"largest difference to the notebook's loop: {gap:.1e}")


if __name__ == "__main__":
    main()
