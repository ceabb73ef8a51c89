"""Intervals and paired comparisons.

Every function returns an :class:`Estimate`.  The intervals are classical ones whose
coverage at the replicas in use, from few to hundreds, is tested: percentile bootstraps
are far too narrow at few, so :func:`bootstrap_interval` is kept for statistics that
have no classical interval.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats


@dataclass(frozen=True)
class Estimate:
    """A measured number with its interval, from `n` replicas or exact cases."""

    estimate: float
    low: float
    high: float
    n: int
    exact: bool = False


def exact(value: float, tolerance: float, n: int = 1) -> Estimate:
    """Return a deterministic number, known to `tolerance`, as [value ± tolerance].

    `n` is the number of cases that were checked.

    Raises:
        ValueError: the tolerance is negative or not finite.
    """
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(
            f"tolerance must be finite and not negative; received {tolerance}"
        )
    value, tolerance = float(value), float(tolerance)
    return Estimate(value, value - tolerance, value + tolerance, n, exact=True)


def mean_interval(x: ArrayLike, level: float = 0.95) -> Estimate:
    """Return the mean of `x` (replica,) with Student's t interval.

    Raises:
        ValueError: fewer than two replicas, a value that is not finite, or a level
            outside (0, 1).
    """
    x = _replicas(x)
    _check_level(level)
    t = special.stdtrit(len(x) - 1, (1 + level) / 2)
    mean, half = float(x.mean()), t * x.std(ddof=1) / len(x) ** 0.5
    return Estimate(mean, float(mean - half), float(mean + half), len(x))


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Return the mean of `a - b`, both (replica,), with Student's t interval.

    Replica i of both must share its seed: the interval is that of the differences.

    Raises:
        ValueError: unequal lengths, or as in :func:`mean_interval`.
    """
    a, b = _replicas(a, "a"), _replicas(b, "b")
    if len(a) != len(b):
        raise ValueError(
            f"a and b must have one value per replica; received {len(a)} and {len(b)}. "
            "Pair them by seed."
        )
    return mean_interval(a - b, level)


def proportion_interval(successes: int, n: int, level: float = 0.95) -> Estimate:
    """Return `successes / n` with Wilson's score interval.

    Raises:
        ValueError: counts that are not whole numbers with 0 <= successes <= n, n >= 1.
    """
    _check_level(level)
    if int(n) != n or int(successes) != successes or not 0 <= successes <= n or n < 1:
        raise ValueError(
            "counts must be whole numbers with 0 <= successes <= n and n >= 1; "
            f"received successes={successes}, n={n}"
        )
    test = stats.binomtest(int(successes), int(n))
    interval = test.proportion_ci(level, method="wilson")
    share = successes / n  # rounding may put the limit 1e-17 inside the share
    low, high = min(interval.low, share), max(interval.high, share)
    return Estimate(float(share), float(low), float(high), int(n))


def bootstrap_interval(
    x: ArrayLike,
    statistic: Callable[..., Any],
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """Return `statistic(x)` with a bias-corrected accelerated bootstrap interval.

    `x` is (replica,); `statistic(x, axis=-1)` reduces the last axis.  The same state of
    `rng` gives the same interval.  Below about 20 replicas it is too narrow for a mean:
    prefer :func:`mean_interval`.

    Raises:
        TypeError: `rng` is not a `numpy.random.Generator`.
        ValueError: as in :func:`mean_interval`, or a degenerate bootstrap distribution.
    """
    x = _replicas(x)
    _check_level(level)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng must be a numpy.random.Generator; received {type(rng).__name__}. "
            "Pass np.random.default_rng(seed)."
        )
    value = float(statistic(x, axis=-1))
    if np.ptp(x) == 0:
        return Estimate(value, value, value, len(x))
    with warnings.catch_warnings():  # a degenerate distribution is refused below
        warnings.simplefilter("ignore")
        interval = stats.bootstrap(
            (x,), statistic, confidence_level=level, n_resamples=resamples, rng=rng
        ).confidence_interval
    if not np.isfinite([interval.low, interval.high]).all():
        raise ValueError(
            "the bootstrap distribution must not be degenerate; received a statistic "
            f"that hardly changes over resamples of {len(x)} replicas. Add replicas."
        )
    return Estimate(value, float(interval.low), float(interval.high), len(x))


def _replicas(x: ArrayLike, name: str = "x") -> np.ndarray:
    values = np.asarray(x, dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(
            f"{name} must be one-dimensional with at least 2 replicas; "
            f"received shape {values.shape}. Run more seeds."
        )
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values)).tolist()
        raise ValueError(
            f"{name} must be finite; received NaN or infinity at {bad}. "
            "Decide what a diverged replica counts as before you average."
        )
    return values


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(
            f"level must lie between 0 and 1, such as 0.95; received {level}"
        )
