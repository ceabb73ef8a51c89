"""The linear programme of the chapter on modern norms, beside other algorithms.

A key can be selected if and only if it is a vertex of the convex hull; scipy finds
the vertices by geometry, the chapter by optimisation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial import ConvexHull
from studies import run_cells


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
