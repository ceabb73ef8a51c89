"""The rounding of the chapter on cost and precision, computed another way.

NumPy rounds each operation on float16 to float16; the chapter emulates that in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from studies import run_cells
from torch.nn import functional as F

from lnlib.stats import Estimate

CELLS = ("rounding", "layer-in")
Half = NDArray[np.float16]


@pytest.fixture(scope="module")
def chapter() -> dict[str, Any]:
    names: dict[str, Any] = {"math": math, "torch": torch, "F": F, "EPS": 1e-5}
    run_cells("cost_and_precision", CELLS, names)
    return names


def total(x: Half, order: str) -> Half:
    """Sum of the columns of x (row, feature), one by one or in pairs."""
    if order == "sequence":
        s = np.zeros(len(x), np.float16)
        for column in x.T:
            s = s + column
        return s
    while x.shape[1] > 1:
        if x.shape[1] % 2:
            x = np.concatenate([x, np.zeros_like(x[:, :1])], 1)
        x = x[:, ::2] + x[:, 1::2]
    return x[:, 0]


def layer_norm(x: Half, order: str) -> Half:
    d, one = np.float16(x.shape[1]), np.float16(1)
    c = x - (total(x, order) / d)[:, None]
    v = (total(c * c, order) / d)[:, None]
    y: Half = c * (one / np.sqrt(v + np.float16(1e-5)))
    return y


@pytest.mark.parametrize("order", ["sequence", "pairs"])
@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("offset", [0.0, 16.0])
def test_half_precision(
    chapter: dict[str, Any], order: str, scale: float, offset: float
) -> None:
    z = np.random.default_rng(0).normal(size=(20, 100))
    x = (scale * (z + offset)).astype(np.float16)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        right = layer_norm(x, order)
    ours = chapter["norm_in"](torch.tensor(x).double(), "float16", order)
    np.testing.assert_array_equal(ours.numpy(), right.astype(float))


def test_the_interval_of_a_median() -> None:
    names: dict[str, Any] = {"np": np, "binom": binom, "Estimate": Estimate}
    names |= {"base": 1, "n_times": 15, "study": None}
    run_cells("cost_and_precision", ("median",), names)
    e = names["median_interval"](range(15))
    assert (e.estimate, e.low, e.high, e.n) == (7, 3, 11, 15)
    cover = binom.cdf(11, 15, 0.5) - binom.cdf(3, 15, 0.5)
    assert cover > 0.95 > binom.cdf(10, 15, 0.5) - binom.cdf(4, 15, 0.5)
