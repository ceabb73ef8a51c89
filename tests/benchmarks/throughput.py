"""Training many replicas at once: how many steps a second, by five ways.

The ways: a Python loop over replicas with torch's Adam, the same with its fused Adam,
`torch.func.vmap`, `lnlib.replicas`, and JAX's `vmap` and `jit` where JAX is installed
(`pip install -e '.[bench]'`).  All train the same networks on the same batches, on one
core; before any clock is read, their losses are compared.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import repeat
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional as F

from lnlib import replicas

COUNTS = (1, 4, 16, 64)
RATE = 1e-3
ROUNDS = 5  # each way once a round, so that a slow moment of the machine meets all
LEAST = 0.15  # seconds of one measurement
Parameters = dict[str, Tensor]


# ------------------------------------------------------------------ networks


class MLP(torch.nn.Module):
    """Two hidden layers with LN, as the studies have them, on flat digits."""

    shape = (64,)
    batch = 32

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
        self.head = torch.nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.layer_norm(self.one(x), (64,)))
        x = F.relu(F.layer_norm(self.two(x), (64,)))
        return self.head(x)

    @staticmethod
    def together(p: Parameters, x: Tensor) -> Tensor:
        """Return the logits (R, batch, class) of all replicas."""
        for name in ("one", "two"):
            x = F.relu(F.layer_norm(affine(p, name, x), (64,)))
        return affine(p, "head", x)


class RNN(torch.nn.Module):
    """A recurrent network with LN before tanh, over the rows of a digit."""

    shape = (16, 8)
    batch = 32

    def __init__(self) -> None:
        super().__init__()
        self.read = torch.nn.Linear(8, 32)
        self.step = torch.nn.Linear(32, 32, bias=False)
        self.head = torch.nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(len(x), 32)
        for read in self.read(x).unbind(1):
            hidden = torch.tanh(F.layer_norm(read + self.step(hidden), (32,)))
        return self.head(hidden)

    @staticmethod
    def together(p: Parameters, x: Tensor) -> Tensor:
        """Return the logits (R, batch, class) of all replicas."""
        R, batch, steps, _ = x.shape
        reads = affine(p, "read", x.flatten(1, 2)).view(R, batch, steps, 32)
        weight = p["step.weight"].mT
        hidden = x.new_zeros(R, batch, 32)
        for read in reads.unbind(2):
            hidden = torch.baddbmm(read, hidden, weight)
            hidden = torch.tanh(F.layer_norm(hidden, (32,)))
        return affine(p, "head", hidden)


class Transformer(torch.nn.Module):
    """Two pre-norm blocks of width 32 with two heads, over the rows of a digit."""

    shape = (8, 8)
    batch = 16

    def __init__(self) -> None:
        super().__init__()
        self.read = torch.nn.Linear(8, 32)
        for block in range(2):
            for name, into, out in BLOCK:
                setattr(self, f"{name}{block}", torch.nn.Linear(into, out))
        self.head = torch.nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(x)
        for block in range(2):
            layer = {name: getattr(self, f"{name}{block}") for name, *_ in BLOCK}
            q, k, v = layer["qkv"](F.layer_norm(x, (32,))).chunk(3, -1)
            mixed = attention(*(heads(part) for part in (q, k, v)))
            x = x + layer["out"](mixed.transpose(-3, -2).flatten(-2))
            x = x + layer["down"](F.gelu(layer["up"](F.layer_norm(x, (32,)))))
        return self.head(x.mean(-2))

    @staticmethod
    def together(p: Parameters, x: Tensor) -> Tensor:
        """Return the logits (R, batch, class) of all replicas."""
        R, batch, length, _ = x.shape

        def apply(name: str, x: Tensor) -> Tensor:
            return affine(p, name, x.flatten(1, -2)).view(R, batch, length, -1)

        x = apply("read", x)
        for block in range(2):
            q, k, v = apply(f"qkv{block}", F.layer_norm(x, (32,))).chunk(3, -1)
            mixed = attention(*(heads(part) for part in (q, k, v)))
            x = x + apply(f"out{block}", mixed.transpose(-3, -2).flatten(-2))
            hidden = F.gelu(apply(f"up{block}", F.layer_norm(x, (32,))))
            x = x + apply(f"down{block}", hidden)
        return affine(p, "head", x.mean(-2))


class CNN(torch.nn.Module):
    """Two convolutions with a norm over channels and positions, on digits."""

    shape = (1, 8, 8)
    batch = 16

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Conv2d(1, 16, 3, padding=1)
        self.two = torch.nn.Conv2d(16, 16, 3, padding=1)
        self.head = torch.nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.one, self.two):
            x = layer(x)
            x = F.relu(F.layer_norm(x, x.shape[-3:]))
        return self.head(x.mean((-2, -1)))

    @staticmethod
    def together(p: Parameters, x: Tensor) -> Tensor:
        """Return the logits (R, batch, class): replicas are groups of one image."""
        R = len(x)
        x = x.transpose(0, 1)
        for name in ("one", "two"):
            weight, bias = p[f"{name}.weight"].flatten(0, 1), p[f"{name}.bias"]
            x = F.conv2d(x.flatten(1, 2), weight, bias.flatten(), padding=1, groups=R)
            x = x.unflatten(1, (R, -1))
            x = F.relu(F.layer_norm(x, x.shape[-3:]))
        return affine(p, "head", x.mean((-2, -1)).transpose(0, 1))


BLOCK = (("qkv", 32, 96), ("out", 32, 32), ("up", 32, 64), ("down", 64, 32))
NETWORKS = {"MLP": MLP, "RNN": RNN, "transformer": Transformer, "CNN": CNN}


def affine(p: Parameters, name: str, x: Tensor) -> Tensor:
    """Apply each replica's own linear layer to x (R, batch, feature)."""
    return torch.baddbmm(p[f"{name}.bias"][:, None], x, p[f"{name}.weight"].mT)


def heads(x: Tensor) -> Tensor:
    """Split the last axis into two heads, in front of the positions."""
    return x.unflatten(-1, (2, 16)).transpose(-3, -2)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Written out: torch's own has no rule for vmap on the CPU."""
    return (q @ k.mT / 4).softmax(-1) @ v


# ------------------------------------------------------------------ ways to train


@dataclass(frozen=True)
class Task:
    """The same networks and the same batch for every way."""

    network: type[Any]
    modules: list[torch.nn.Module]
    x: Tensor  # (R, batch, *shape)
    y: Tensor  # (R, batch)

    @property
    def stacked(self) -> Parameters:
        """Parameters with a leading replica axis, copied."""
        state, _ = stack_module_state(self.modules)
        return {name: p.detach().clone() for name, p in state.items()}


def task(name: str, R: int, dtype: torch.dtype = torch.float32) -> Task:
    """Draw R networks, and a batch for each."""
    network = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = [network().to(dtype) for _ in range(R)]
    size = (R, network.batch)
    x = torch.randn(*size, *network.shape, generator=generator, dtype=dtype)
    return Task(network, modules, x, torch.randint(10, size, generator=generator))


Step = Callable[[int], Tensor]  # trains so many steps more; returns the last losses


def loop(work: Task, fused: bool | None = None) -> Step:
    """One replica after the other, as one would write it first."""
    modules = [work.network().to(work.x.dtype) for _ in work.modules]
    for new, old in zip(modules, work.modules, strict=True):
        new.load_state_dict(old.state_dict())
    optimizers = [torch.optim.Adam(m.parameters(), RATE, fused=fused) for m in modules]

    def run(steps: int) -> Tensor:
        losses = [torch.tensor(torch.nan)] * len(modules)
        for r, (module, optimizer) in enumerate(zip(modules, optimizers, strict=True)):
            for _ in range(steps):
                optimizer.zero_grad()
                loss = F.cross_entropy(module(work.x[r]), work.y[r])
                loss.backward()
                optimizer.step()
            losses[r] = loss.detach()
        return torch.stack(losses)

    return run


def mapped(work: Task) -> Step:
    """`torch.func.vmap` over stacked parameters, with one fused Adam."""
    parameters = work.stacked
    base = work.modules[0]

    def loss(p: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(base, p, (x,)), y)

    gradients = vmap(grad_and_value(loss))
    for p in parameters.values():
        p.requires_grad_()
    optimizer = torch.optim.Adam(parameters.values(), RATE, fused=True)

    def run(steps: int) -> Tensor:
        for _ in range(steps):
            with torch.no_grad():
                found, losses = gradients(parameters, work.x, work.y)
            for name, p in parameters.items():
                p.grad = found[name]
            optimizer.step()
        return losses

    return run


def ours(work: Task) -> Step:
    """`lnlib.replicas.train`; it starts anew at each call."""

    def loss(p: Parameters, x: Tensor, y: Tensor) -> Tensor:
        logits = work.network.together(p, x)
        each = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
        return each.view_as(y).mean(1)

    def run(steps: int) -> Tensor:
        batches = repeat((work.x, work.y))
        return replicas.train(
            loss, work.stacked, lr=RATE, steps=steps, batches=batches
        ).losses[-1]

    return run


def jax_ways() -> dict[str, Callable[[Task], Step]]:
    """Return the way of JAX, if it is installed."""
    if find_spec("jax") is None:
        return {}
    from with_jax import compiled  # beside this file

    return {"JAX vmap+jit": compiled}


WAYS: dict[str, Callable[[Task], Step]] = {
    "loop": loop,
    "loop, fused Adam": lambda work: loop(work, fused=True),
    "torch.func.vmap": mapped,
    "lnlib.replicas": ours,
}


# ------------------------------------------------------------------ measurement


def disagreement(name: str, ways: dict[str, Callable[[Task], Step]]) -> float:
    """Return the largest difference of any way's losses from the loop's, in float64."""
    work = task(name, 3, torch.float64)
    expected = loop(work)(5)
    return max(
        float((way(work)(5).to(expected) - expected).abs().max())
        for way in ways.values()
    )


def seconds_a_step(run: Step, steps: int) -> float:
    """Return the time of one step of all replicas."""
    start = time.perf_counter()
    run(steps)
    return (time.perf_counter() - start) / steps


def measure(name: str, R: int, ways: dict[str, Callable[[Task], Step]]) -> dict:
    """Return the seconds of a step (median of the rounds) by way."""
    runs: dict[str, Step] = {}
    steps: dict[str, int] = {}
    for way, build in ways.items():
        runs[way] = build(task(name, R))
        runs[way](2)  # warm up, compile
        steps[way] = max(2, round(LEAST / seconds_a_step(runs[way], 2)))
        runs[way](steps[way])  # JAX compiles for each number of steps
    rounds = [
        {way: seconds_a_step(run, steps[way]) for way, run in runs.items()}
        for _ in range(ROUNDS)
    ]
    return {way: median(r[way] for r in rounds) for way in runs}


def gemm_rate(size: int = 768) -> float:
    """Return what one core does in a large matrix product, in FLOP/s."""
    a = torch.randn(size, size)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def flops_of_a_step(name: str) -> int:
    """Return the FLOP of one replica's step, forward and backward, by torch's count."""
    from torch.utils.flop_counter import FlopCounterMode

    work = task(name, 1)
    with FlopCounterMode(display=False) as counter:
        loss = F.cross_entropy(work.modules[0](work.x[0]), work.y[0])
        loss.backward()
    return counter.get_total_flops()


@contextmanager
def one_core() -> Iterator[None]:
    """Keep the process on one core, where the system can (JAX starts many threads)."""
    torch.set_num_threads(1)
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def rows(counts: tuple[int, ...] = COUNTS) -> Iterator[dict[str, Any]]:
    """Yield one row for each network, number of replicas and way.

    Raises:
        RuntimeError: the ways do not train the same.
    """
    with one_core():
        ways = WAYS | jax_ways()
        rate = gemm_rate()
        for name in NETWORKS:
            off = disagreement(name, ways)
            if not off < 1e-9:  # NaN, too
                raise RuntimeError(
                    f"all ways must train the same {name}; losses differ by {off:.1e}"
                )
            for R in counts:
                yield from compare(name, R, ways, rate)


def compare(
    name: str, R: int, ways: dict[str, Callable[[Task], Step]], rate: float
) -> Iterator[dict[str, Any]]:
    """Yield one row for each way; `rate` is what the core does in FLOP/s."""
    work = R * flops_of_a_step(name)
    times = measure(name, R, ways)
    for way, spent in times.items():
        yield {
            "network": name,
            "replicas": R,
            "way": way,
            "steps_per_second": R / spent,
            "over_loop": times["loop"] / spent,
            "over_fused_loop": times["loop, fused Adam"] / spent,
            "share_of_gemm": work / spent / rate,
        }
