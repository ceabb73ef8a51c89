"""The network of the notebook is the one that torch's own modules make.

The definitions are taken from the notebook's own cells, by name, and compared in
float64, replica by replica, with a network of `torch.nn` modules.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from studies import run_cells
from torch import Tensor, nn
from torch.nn import functional as F

TOLERANCE = 1e-12
EPS = 1e-5


@pytest.fixture(scope="module")
def cells() -> dict[str, Any]:
    """What the cells that define the network leave behind."""
    import numpy as np

    from lnlib.norms import normalise

    kind = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float64}
    names: dict[str, Any] = {
        "torch": torch, "np": np, "F": F, "normalise": normalise,
        "pairwise": pairwise, "eps": EPS, "CLASSES": 4,
        "settings": {"axes": ["chw", "hw"]},
        "most": lambda a, b: (a - b).abs().max().item(),
        "X": torch.randn(4, 8, 6, 6, **kind),
    }  # fmt: skip
    run_cells(
        "cnn_texture_bias", ("reference", "batched-norm", "draw", "forward-pass"), names
    )
    return names


class ChannelsLast(nn.Module):
    """LN over the channels at each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (image, channel, H, W)."""
        y: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


def norm_module(axes: str, channels: int, size: int) -> nn.Module:
    """Return torch's own module for the norm over `axes`."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "batch": lambda: nn.BatchNorm2d(channels, eps=EPS),
        "chw": lambda: nn.GroupNorm(1, channels, eps=EPS),
        "groups": lambda: nn.GroupNorm(4, channels, eps=EPS),
        "hw": lambda: nn.InstanceNorm2d(channels, eps=EPS),
        "rms": lambda: nn.RMSNorm([channels, size, size], eps=EPS),
        "c": lambda: ChannelsLast(channels),
    }
    return makers[axes]().double()


AXES = ("none", "batch", "chw", "groups", "hw", "rms", "c")


def by_modules(P: dict[str, Tensor], x: Tensor, axes: str, r: int) -> Tensor:
    """Return the logits (image, class) of replica r in training mode."""
    for k, (stride, size) in enumerate(((2, 8), (2, 4), (1, 4))):
        w, gamma, beta = (P[f"{name}{k}"][r] for name in ("W", "gamma", "beta"))
        conv = nn.Conv2d(w.shape[1], len(w), 3, stride, 1, bias=False).double()
        conv.weight = nn.Parameter(w)
        x = norm_module(axes, len(w), size)(conv(x))
        x = F.relu(x * gamma[:, None, None] + beta[:, None, None])
    return x.flatten(1) @ P["V"][r] + P["c"][r]


@pytest.mark.parametrize("axes", AXES)
def test_the_network_is_that_of_torch(cells: dict[str, Any], axes: str) -> None:
    R, generator = 3, torch.Generator().manual_seed(1)
    drawn = [cells["draw"](generator) for _ in range(R)]
    P = {name: torch.stack([d[name] for d in drawn]).double() for name in drawn[0]}
    for k in range(3):
        P[f"gamma{k}"] += torch.randn(P[f"gamma{k}"].shape, generator=generator)
        P[f"beta{k}"] += torch.randn(P[f"beta{k}"].shape, generator=generator)
    x = torch.randn(5, R, 3, 16, 16, generator=generator).double()
    found = cells["forward"](P, x.flatten(1, 2), axes)
    for r in range(R):
        expected = by_modules(P, x[:, r], axes, r)
        assert (found[r] - expected).abs().max() < TOLERANCE


def test_batch_norm_is_tested_in_evaluation_mode(cells: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(2)
    P = {k: v[None].double() for k, v in cells["draw"](generator).items()}
    x = torch.randn(64, 3, 16, 16, generator=generator).double()
    stats: list[Any] = []
    trained = cells["forward"](P, x, "batch", seen=stats)
    assert len(stats) == 3
    whole = cells["forward"](P, x, "batch", stats)
    part = cells["forward"](P, x[:8], "batch", stats)
    assert (whole - trained).abs().max() < TOLERANCE
    assert (whole[:, :8] - part).abs().max() < TOLERANCE


def test_another_norm_is_noticed(cells: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(3)
    P = {k: v[None].double() for k, v in cells["draw"](generator).items()}
    x = torch.randn(5, 3, 16, 16, generator=generator).double()
    found = cells["forward"](P, x, "chw")
    assert (found[0] - by_modules(P, x, "hw", 0)).abs().max() > 0.01
