"""Train many seeds and settings at once, each with its own learning rate.

A *replica* is one network: one seed at one setting.  Every parameter has a leading
replica axis R, so one `torch.bmm` serves all replicas.  All parameters are views into
one flat buffer (R, P), so one optimiser step serves all of them, too.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lnlib.choices import choose

OPTIMIZERS = ("adam", "sgd")
Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class History:
    """What a training run leaves behind.

    `parameters` maps names to tensors (R, …); `losses` (step, R) is NaN from the step
    on at which a replica diverged; `diverged_at` (R,) is that step, or -1.  A diverged
    replica keeps the parameters that it had at that step.
    """

    parameters: Parameters
    losses: Tensor
    diverged_at: Tensor

    @property
    def diverged(self) -> Tensor:
        """Which replicas (R,) diverged."""
        return self.diverged_at >= 0


def cross(**axes: Sequence[object] | np.ndarray) -> dict[str, np.ndarray]:
    """Return every combination of the levels of `axes`, flat, the last axis fastest.

    `cross(gain=[1, 3], lr=[.1, .2], seed=[0, 1])` gives 8 replicas; reshape their
    results to (gain, lr, seed).
    """
    mesh = np.meshgrid(*map(np.asarray, axes.values()), indexing="ij")
    return {name: levels.ravel() for name, levels in zip(axes, mesh, strict=True)}


def initialise(
    seeds: ArrayLike,
    draw: Callable[[torch.Generator], Mapping[str, Tensor]],
    device: torch.device | str = "cpu",
) -> Parameters:
    """Stack `draw(generator)` over `seeds` (R,): equal seeds give equal parameters.

    The generator lives on the CPU, so that every device starts from the same numbers.
    """
    unique, index = np.unique(np.asarray(seeds), return_inverse=True)
    drawn = [draw(torch.Generator().manual_seed(int(seed))) for seed in unique]
    return {
        name: torch.stack([one[name] for one in drawn])[index].to(device)
        for name in drawn[0]
    }


def minibatches(
    tensors: Sequence[Tensor], size: int, seeds: ArrayLike
) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches (R, size, …) of `tensors` (case, …) for ever, in shuffled epochs.

    Replicas of equal seed see the same order; it comes from generators on the CPU and
    does not depend on the device.  What is left over at the end of an epoch is skipped.

    Raises:
        ValueError: `size` is not between 1 and the number of cases.
    """
    cases = len(tensors[0])
    if not 1 <= size <= cases:
        raise ValueError(f"size must be between 1 and {cases} cases; received {size}")
    unique, index = np.unique(np.asarray(seeds), return_inverse=True)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in unique]
    while True:
        orders = torch.stack([torch.randperm(cases, generator=g) for g in generators])
        for start in range(0, cases - size + 1, size):
            rows = orders[index, start : start + size].to(tensors[0].device)
            yield tuple(t[rows] for t in tensors)


def train(
    loss: Callable[..., Tensor],
    parameters: Mapping[str, Tensor],
    *,
    lr: ArrayLike | Tensor,
    steps: int,
    batches: Iterable[Sequence[Tensor]],
    optimizer: str = "adam",
    momentum: float = 0.0,
    clip: float | ArrayLike | Tensor | None = None,
    schedule: Callable[[float], float] | None = None,
) -> History:
    """Minimise `loss(parameters, *batch)`, of shape (R,), for every replica at once.

    `lr` is a number or (R,); `clip`, if given, limits each replica's gradient norm and
    is a number or (R,), infinite where nothing is to be clipped.  `momentum` belongs to
    "sgd".  `schedule(done)` multiplies every learning rate, done = step / steps.  The
    updates equal those of `torch.optim`, which knows one learning rate.

    A replica whose loss or gradient is not finite has diverged: it is frozen, masked in
    the loss and in the gradient (0 times NaN is NaN), and never touches its neighbours.

    Raises:
        ValueError: parameters without a common leading axis, a learning rate or a loss
            of the wrong shape, an unknown optimizer, or too few batches.
    """
    choose("optimizer", optimizer, OPTIMIZERS)
    _keep_freed_memory()
    buffer, shapes = _flatten(parameters)
    R = len(buffer)
    rate = _per_replica("lr", lr, buffer)
    limit = None if clip is None else _per_replica("clip", clip, buffer)
    direction = _direction(optimizer, momentum, buffer.detach())
    alive = torch.ones(R, dtype=torch.bool, device=buffer.device)
    diverged_at = torch.full((R,), -1, device=buffer.device)
    losses = buffer.new_full((steps, R), torch.nan)
    source = iter(batches)
    for step in range(steps):
        batch = next(source, None)
        if batch is None:
            raise ValueError(f"batches must last for {steps} steps; received {step}")
        value = loss(_views(buffer, shapes), *batch)
        if value.shape != (R,):
            raise ValueError(
                f"loss must return one value per replica, ({R},); received "
                f"{tuple(value.shape)}. Average over the batch, not over replicas."
            )
        (gradient,) = torch.autograd.grad(value.where(alive, 0.0).sum(), buffer)
        value = value.detach()
        largest = gradient.abs().amax(1)  # NaN if there is one
        finite = value.isfinite() & largest.isfinite()
        diverged_at[alive & ~finite] = step
        alive &= finite
        losses[step] = value.where(alive, torch.nan)
        if not alive.all():
            gradient[~alive] = 0.0
        if limit is not None:
            scale = limit / (_norms(gradient, largest) + 1e-6)  # as torch has it
            gradient *= scale.clamp(max=1.0)[:, None]
        factor = 1.0 if schedule is None else schedule(step / steps)
        with torch.no_grad():
            now = rate.where(alive, 0.0)[:, None]
            buffer.addcmul_(direction(gradient), now, value=-factor)
    return History(_views(buffer.detach(), shapes), losses, diverged_at)


def best_learning_rate(
    scores: ArrayLike,
    grid: ArrayLike,
    *,
    arm: str = "this arm",
    higher_is_better: bool = True,
) -> int:
    """Return the index into `grid` (lr,) of the best mean of `scores` (replica, lr).

    `scores` are those of the validation split, of one arm.  Of equal means the first
    inside the grid is taken.

    Raises:
        ValueError: fewer than three learning rates, not positive and increasing; scores
            of another shape or NaN; equal means at all rates; the best one at the edge
            of the grid.
    """
    rates, values = np.asarray(grid, dtype=float), np.asarray(scores, dtype=float)
    if rates.ndim != 1 or len(rates) < 3 or (np.diff(rates, prepend=0) <= 0).any():
        raise ValueError(
            "a learning-rate grid must hold at least 3 positive, increasing values; "
            f"received {rates.tolist()} for {arm}"
        )
    if values.ndim != 2 or values.shape[1] != len(rates) or not len(values):
        raise ValueError(
            f"scores of {arm} must have shape (replica, {len(rates)}); "
            f"received {values.shape}"
        )
    if np.isnan(values).any():
        raise ValueError(
            f"scores of {arm} must not be NaN; received {np.isnan(values).sum()}. "
            "Count a diverged replica as the worst score, such as chance."
        )
    means = values.mean(0) if higher_is_better else -values.mean(0)
    if (means == means[0]).all():
        raise ValueError(
            f"the learning rates of {arm} must not all score the same; received "
            f"{values.mean():g} at each of {rates.tolist()}. Look for divergence, or "
            "for a score that cannot change."
        )
    best = np.flatnonzero(means == means.max())
    inside = best[(best > 0) & (best < len(rates) - 1)]
    if not len(inside):
        raise ValueError(
            f"the best learning rate of {arm} must lie inside its grid; received "
            f"{rates[best[0]]:g} at the edge of [{rates[0]:g}, {rates[-1]:g}]. "
            "Extend the grid on that side."
        )
    return int(inside[0])


def _keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: page faults take a third of training else."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((-1, 2**31 - 1), (-3, 2**30), (-2, 2**26)):
            libc.mallopt(option, value)  # trim threshold, mmap threshold, top pad


def _flatten(parameters: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, torch.Size]]:
    """Copy parameters into one leaf (R, P); return it and their shapes."""
    shapes = {name: p.shape for name, p in parameters.items()}
    if (
        len({shape[:1] for shape in shapes.values()} - {()}) != 1
        or () in shapes.values()
    ):
        listed = {name: tuple(shape) for name, shape in shapes.items()}
        raise ValueError(
            f"parameters must share a leading replica axis; received {listed}"
        )
    flat = [p.detach().flatten(1) for p in parameters.values()]
    return torch.cat(flat, dim=1).requires_grad_(), shapes


def _views(buffer: Tensor, shapes: Mapping[str, torch.Size]) -> Parameters:
    """Return the parameters as views into `buffer`: one split, one gradient."""
    parts = buffer.split([shape[1:].numel() for shape in shapes.values()], dim=1)
    return {
        name: part.view(shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def _per_replica(name: str, value: ArrayLike | Tensor, buffer: Tensor) -> Tensor:
    numbers = torch.as_tensor(value, dtype=buffer.dtype, device=buffer.device)
    if numbers.shape not in ((), buffer.shape[:1]) or not (numbers > 0).all():
        raise ValueError(
            f"{name} must be a positive number, or one for each of {len(buffer)} "
            f"replicas; received {numbers.tolist()}"
        )
    return numbers.expand(len(buffer))


def _direction(
    optimizer: str, momentum: float, like: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return what maps the next gradient to the descent direction at rate 1."""
    mean, square, out = (torch.zeros_like(like) for _ in range(3))
    count, beta1, beta2, eps = 0, 0.9, 0.999, 1e-8  # torch's defaults

    def sgd(gradient: Tensor) -> Tensor:
        return mean.mul_(momentum).add_(gradient)

    def adam(gradient: Tensor) -> Tensor:
        nonlocal count
        count += 1
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (1 - beta2**count) ** 0.5
        torch.sqrt(square, out=out).add_(eps * root)
        return torch.div(mean, out, out=out).mul_(root / (1 - beta1**count))

    return adam if optimizer == "adam" else sgd


def _norms(gradient: Tensor, largest: Tensor) -> Tensor:
    """Return the norm of each row; dividing by its largest entry avoids overflow."""
    scale = largest.nan_to_num(1.0, posinf=1.0).clamp(min=1e-30)
    return scale * (gradient / scale[:, None]).square().sum(1).sqrt()
