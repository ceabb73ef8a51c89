"""Tools of the chapter on modern norms, beside other algorithms.

A key can be selected if and only if it is a vertex of the convex hull; scipy finds
the vertices by geometry, the chapter by optimisation.  What a branch should add to the
variance of the stream is compared with the average over many random weights, and the
equilibria of attention with torch's own attention and norm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.spatial import ConvexHull
from studies import run_cells
from torch.nn import functional as F


@pytest.fixture(scope="module")
def unselectable() -> Any:
    names: dict[str, Any] = {"np": np, "linprog": linprog}
    run_cells("modern_placements", ("lp",), names)
    return names["unselectable"]


@pytest.mark.parametrize("features", [2, 3, 4])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_vertices_of_the_hull(unselectable: Any, features: int, scale: float) -> None:
    keys = scale * np.random.default_rng(features).normal(size=(30, features))
    winners = set(np.flatnonzero(~unselectable(keys)))
    assert winners == set(ConvexHull(keys).vertices)


def test_keys_on_a_sphere_all_win(unselectable: Any) -> None:
    keys = np.random.default_rng(0).normal(size=(50, 3))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    assert not unselectable(keys).any()


def test_a_shift_of_all_keys_changes_nothing(unselectable: Any) -> None:
    keys = np.random.default_rng(1).normal(size=(20, 3))
    assert (unselectable(keys) == unselectable(keys + 5.0)).all()


def test_the_middle_and_a_double_are_lost(unselectable: Any) -> None:
    square = [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    assert unselectable([*square, [0, 0]]).tolist() == [False] * 4 + [True]
    assert unselectable([*square, [1, 1]]).tolist() == [True, *[False] * 3, True]


# ------------------------------------------------------------- rank


@pytest.fixture(scope="module")
def rank_tools() -> dict[str, Any]:
    names: dict[str, Any] = {"torch": torch, "n_draws": 3, "D": 32}
    run_cells("modern_placements", ("rank-tools",), names)
    return names


@pytest.mark.parametrize("rank", [1, 2, 8, 16])
def test_an_equilibrium_by_torch(rank_tools: dict[str, Any], rank: int) -> None:
    X, V = rank_tools["equilibrium"](rank, torch.Generator().manual_seed(rank))
    assert (torch.linalg.matrix_rank(X) == rank).all()
    Y = F.scaled_dot_product_attention(X, X, 0.3 * X @ V)
    assert torch.allclose(F.layer_norm(Y, (32,), eps=0.0), X, atol=1e-10)
    share = rank_tools["outside"](X)
    assert torch.allclose(share, torch.full_like(share, 1 - 1 / rank), atol=1e-12)


def test_signs_do_not_add_rank(rank_tools: dict[str, Any]) -> None:
    x = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(0)).double()
    signs = torch.tensor([1.0, -2.0, 3.0]).double()[:, None]
    assert rank_tools["outside"](signs * x) < 1e-14


# ------------------------------------------------------------- stream


def test_what_a_feed_forward_layer_adds() -> None:
    d, hidden, draws = 8, 24, 4000
    names: dict[str, Any] = {"torch": torch, "F": F, "D": d, "HIDDEN": hidden}
    run_cells("modern_placements", ("feed-forward",), names)
    gen = torch.Generator().manual_seed(0)

    def xavier(rows: int, columns: int) -> torch.Tensor:
        side = (6 / (rows + columns)) ** 0.5
        z = torch.rand(draws, rows, columns, generator=gen).double()
        return side * (2 * z - 1)

    one = torch.randn(1, 1, 5, d, generator=gen).double() + 0.5
    weights = {
        "w1": [xavier(d, hidden)],
        "w2": [xavier(hidden, d)],
        "b1": [torch.zeros(draws, 1, hidden).double()],
        "b2": [torch.zeros(draws, 1, d).double()],
    }
    keep: dict[str, Any] = {"adds": []}
    branch = names["feed_forward"](weights, 0, one.expand(draws, -1, -1, -1), keep)
    assert branch.var(-1).mean() == pytest.approx(keep["adds"][0][0].item(), rel=0.03)
