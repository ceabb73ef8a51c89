"""One cell of the grid, computed again with Flower's aggregation function.

The notebook's own cells train the clients; only the server's mean is exchanged.
Clients have unequal numbers of samples, so that the weights count.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
ROUNDS, SEED, RATE = 3, 7, 0.3
TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that runs the notebook's clients on Flower."""
    path = ROOT / "book" / "federated_on_flower.py"
    spec = importlib.util.spec_from_file_location("federated_on_flower", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def aggregate() -> Callable[..., Any]:
    """Flower's weighted average of lists of arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import uses what click deprecates
        from flwr.server.strategy.aggregate import aggregate as of_flower
    return of_flower


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def by_flower(aggregate: Callable[..., Any]) -> Callable[..., Tensor]:
    """Return a stand-in for the notebook's `weighted_mean` that Flower computes.

    Flower takes numbers of samples; it divides by their sum, so shares serve as well.
    """

    def mean(v: Tensor, weight: Tensor) -> Tensor:
        groups = [
            aggregate([([a.numpy()], w.item()) for a, w in zip(x, share, strict=True)])
            for x, share in zip(v, weight, strict=True)
        ]
        return torch.tensor(np.array(groups)).expand_as(v)

    return mean


def unweighted(v: Tensor, weight: Tensor) -> Tensor:
    return v.mean(1, keepdim=True).expand_as(v)


def trained(
    script: ModuleType, mean: Callable[..., Tensor] | None
) -> dict[str, Tensor]:
    names: dict[str, Any] = script.notebook_names()
    if mean is not None:
        names["weighted_mean"] = mean
    cell = names["Cell"]("dirichlet", "average", lr=RATE)
    parameters, *_ = names["fit"]([cell], [SEED], ROUNDS)
    return dict(parameters)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max((a[name] - b[name]).abs().max().item() for name in a)


def test_a_cell_is_that_of_flower(
    script: ModuleType, aggregate: Callable[..., Any]
) -> None:
    ours = trained(script, None)
    assert distance(ours, trained(script, by_flower(aggregate))) < TOLERANCE
    assert distance(ours, trained(script, unweighted)) > 1e-3


def test_clients_alone_and_flower_give_the_same_network(
    script: ModuleType, aggregate: Callable[..., Any]
) -> None:
    names = script.notebook_names()
    arrays = [v.numpy() for v in names["draw"](SEED).values()]
    for done in range(ROUNDS):
        results = [
            script.local_training(names, "dirichlet", SEED, k, arrays, done, RATE)
            for k in range(script.SIZES["CLIENTS"])
        ]
        arrays = aggregate(results)
    ours = trained(script, None)
    theirs = dict(zip(names["draw"](SEED), map(torch.tensor, arrays), strict=True))
    moved = {k: v for k, v in theirs.items() if not k.startswith("scalar")}
    assert max((ours[k][0] - v).abs().max() for k, v in moved.items()) < TOLERANCE
    found = script.balanced_accuracy(names, "dirichlet", SEED, arrays)
    assert 0.1 < found < 1
