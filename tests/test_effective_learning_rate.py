"""The formulas of the chapter on the effective learning rate, computed another way.

The equilibria are those of a linear recursion with noise; here its covariance is
solved as a Lyapunov equation, which the chapter does not use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov
from studies import run_cells

CELLS = ("arms", "predictions")


@pytest.fixture(scope="module")
def chapter() -> dict[str, Any]:
    names: dict[str, Any] = {"np": np, "torch": torch}
    exec("from typing import NamedTuple", names)
    run_cells("effective_learning_rate", CELLS, names)
    return names


def covariance(arm: Any, lr: float) -> tuple[float, float]:
    """Variance and lag-1 covariance of one weight, for noise of variance one.

    The state is (weight, buffer); SGD has torch's buffer, AdamW the running mean.
    """
    x, b = lr * arm.decay, arm.beta
    if arm.optimizer == "sgd":  # m' = b m + decay w + n, w' = w - lr m'
        step = np.array([[1 - x, -lr * b], [arm.decay, b]])
        noise = np.array([[-lr], [1.0]])
    else:  # m' = b m + (1 - b) n, w' = (1 - x) w - lr m'
        step = np.array([[1 - x, -lr * b], [0.0, b]])
        noise = np.array([[-lr * (1 - b)], [1 - b]])
    state = solve_discrete_lyapunov(step, noise @ noise.T)
    return state[0, 0], (step @ state)[0, 0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("decay", [0.02, 0.2, 2.0])
def test_rotation_and_norm(
    chapter: dict[str, Any], optimizer: str, beta: float, decay: float
) -> None:
    arm, lr = chapter["Arm"](optimizer=optimizer, beta=beta, decay=decay), 0.05
    variance, lagged = covariance(arm, lr)
    angle = np.arccos(lagged / variance)
    assert chapter["our_rotation"](arm, lr) == pytest.approx(angle, rel=1e-6)
    # SGD: noise |g|^2 = size^2 / |w|^2, so |w|^2 = variance size^2 / |w|^2.
    norm = (variance * 9.0) ** 0.25 if optimizer == "sgd" else (variance * 9.0) ** 0.5
    size = 3.0 if optimizer == "sgd" else 9.0
    assert chapter["our_norm"](arm, lr, size) == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_the_papers_form_is_the_first_order(
    chapter: dict[str, Any], optimizer: str, beta: float
) -> None:
    ratios = []
    for decay in (1e-2, 1e-4):
        arm = chapter["Arm"](optimizer=optimizer, beta=beta, decay=decay)
        paper, exact = chapter["paper_rotation"](arm, 0.1), chapter["our_rotation"]
        ratios.append(abs(paper / exact(arm, 0.1) - 1))
    assert ratios[1] < 1e-5
    assert ratios[1] < ratios[0]
