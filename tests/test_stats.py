"""Intervals cover what they promise, at the numbers of replicas that studies use."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, bootstrap

from lnlib import stats

SIZES = (4, 5, 8, 12, 16, 20, 24, 32, 400)
DRAWS = {
    "normal": (lambda rng, n: rng.normal(3.0, 2.0, n), 3.0),
    "skewed": (lambda rng, n: rng.lognormal(0.0, 0.4, n), np.exp(0.08)),
}
REPEATS = 1500  # standard error of a coverage of .95: .0056
# Student's t is exact for normal data; mild skew costs it up to two points.
LEAST = {"normal": 0.93, "skewed": 0.90}

finite = st.floats(-1e3, 1e3)
samples = st.lists(finite, min_size=2, max_size=20).filter(lambda x: np.ptp(x) > 1e-3)


def coverage(interval, draw, truth, n, repeats=REPEATS, seed=0):
    rng = np.random.default_rng(seed)
    found = [interval(draw(rng, n)) for _ in range(repeats)]
    return np.mean([e.low <= truth <= e.high for e in found])


def percentile_bootstrap(x):
    rng = np.random.default_rng(0)
    means = x[rng.integers(len(x), size=(1000, len(x)))].mean(1)
    return stats.Estimate(x.mean(), *np.quantile(means, [0.025, 0.975]), len(x))


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("n", SIZES)
def test_mean_interval_covers(n, kind):
    assert LEAST[kind] <= coverage(stats.mean_interval, *DRAWS[kind], n) <= 0.97


def test_the_sizes_are_those_of_the_methods_page():
    page = Path(__file__).resolve().parents[1] / "book" / "methods.md"
    told = f"at sizes from {min(SIZES)} to {max(SIZES)} replicas"
    assert told in page.read_text("utf-8")


def test_the_coverage_check_can_fail():
    assert coverage(percentile_bootstrap, *DRAWS["normal"], 5, 500) < 0.90


@pytest.mark.parametrize("n", SIZES)
def test_paired_difference_covers_and_uses_the_pairs(n):
    def draw(rng, n):
        shared = rng.normal(0, 5, n)
        return shared + rng.normal(0.3, 1, n), shared + rng.normal(0, 1, n)

    found = coverage(lambda ab: stats.paired_difference(*ab), draw, 0.3, n)
    assert 0.93 <= found <= 0.97
    a, b = draw(np.random.default_rng(1), n)
    paired, alone = stats.paired_difference(a, b), stats.mean_interval(a)
    assert paired.high - paired.low < alone.high - alone.low
    assert paired.estimate == pytest.approx(np.mean(a) - np.mean(b))


@pytest.mark.parametrize("n", SIZES)
def test_proportion_interval_covers(n):
    intervals = [stats.proportion_interval(k, n) for k in range(n + 1)]
    p = np.linspace(0.05, 0.95, 181)
    weights = binom.pmf(np.arange(n + 1)[:, None], n, p)
    inside = np.array([(e.low <= p) & (p <= e.high) for e in intervals])
    covered = (weights * inside).sum(0)  # exact: no simulation
    assert 0.93 <= covered.mean() <= 0.98
    assert covered.min() >= 0.83


def test_proportion_interval_is_wilson():
    found = stats.proportion_interval(9, 10)  # Newcombe 1998, method 3
    assert (found.low, found.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    none, every = stats.proportion_interval(0, 8), stats.proportion_interval(8, 8)
    assert none.low == 0 < none.high < every.low < every.high == 1
    assert (found.estimate, found.n) == (0.9, 10)
    narrow = stats.proportion_interval(9, 10, level=0.5)
    assert found.low < narrow.low < narrow.high < found.high
    assert stats.proportion_interval(1, 1).high == 1


@pytest.mark.parametrize("kind", DRAWS)
def test_bootstrap_interval_covers_at_20(kind):
    rng = np.random.default_rng(1)

    def interval(x):
        return stats.bootstrap_interval(x, np.mean, rng, resamples=500)

    # Measured .91-.93: worse than Student's t, as its docstring says.
    assert 0.88 <= coverage(interval, *DRAWS[kind], 20, 400) <= 0.97


def test_bootstrap_interval_depends_on_its_generator_alone():
    x = np.random.default_rng(0).normal(size=16)
    first, again, other = (
        stats.bootstrap_interval(x, np.median, np.random.default_rng(seed))
        for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other
    with pytest.raises(TypeError) as error:
        stats.bootstrap_interval(x, np.median, 7)
    assert str(error.value) == (
        "rng must be a numpy.random.Generator; received int. "
        "Pass np.random.default_rng(seed)."
    )


def test_bootstrap_interval_is_scipys():
    def last_axis(x, axis):
        assert axis == -1
        return np.median(x, axis)

    x = np.random.default_rng(0).normal(size=16)
    for settings in ({}, {"level": 0.5}, {"resamples": 300}):
        found = stats.bootstrap_interval(
            x, last_axis, np.random.default_rng(7), **settings
        )
        kept = {"level": 0.95, "resamples": 2000} | settings
        expected = bootstrap(
            (x,),
            np.median,
            confidence_level=kept["level"],
            n_resamples=kept["resamples"],
            rng=np.random.default_rng(7),
        ).confidence_interval
        assert found == stats.Estimate(np.median(x), *expected, 16)


def test_bootstrap_interval_of_equal_replicas_has_no_width():
    found = stats.bootstrap_interval([2.0] * 9, np.median, np.random.default_rng(0))
    assert found == stats.Estimate(2.0, 2.0, 2.0, 9)


def test_bootstrap_interval_refuses_a_degenerate_statistic():
    with pytest.raises(ValueError, match=r"^the bootstrap .* over resamples of 10 rep"):
        stats.bootstrap_interval(
            [0.0] * 9 + [1.0], np.median, np.random.default_rng(0), resamples=50
        )


@given(samples, st.floats(0.1, 10), finite)
def test_mean_interval_follows_shift_and_scale(x, scale, shift):
    plain, moved = (stats.mean_interval(v) for v in (x, scale * np.array(x) + shift))
    for part in ("estimate", "low", "high"):
        expected = scale * getattr(plain, part) + shift
        assert getattr(moved, part) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert plain.low <= plain.estimate <= plain.high
    assert plain.n == len(x)


@given(samples)
def test_a_higher_level_is_wider(x):
    narrow, wide = (stats.mean_interval(x, level) for level in (0.5, 0.95))
    assert wide.low < narrow.low
    assert wide.high > narrow.high


def test_a_paired_difference_is_the_mean_of_differences_at_its_level():
    hits, others = [True, False, True, True], [False, False, True, False]
    for level in (0.5, 0.95):
        found = stats.paired_difference(hits, others, level)
        assert found == stats.mean_interval([1.0, 0.0, 0.0, 1.0], level)


def test_exact_is_marked():
    assert stats.exact(2.0, 0.0) == stats.Estimate(2.0, 2.0, 2.0, 1, exact=True)
    assert stats.exact(2.0, 0.5, n=20) == stats.Estimate(2.0, 1.5, 2.5, 20, exact=True)
    assert not stats.mean_interval([1, 2]).exact


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.mean_interval([1.0]), "^x must be .* at least 2 replicas"),
        (lambda: stats.mean_interval([[1.0, 2.0]]), r"received shape \(1, 2\)"),
        (lambda: stats.mean_interval([1.0, np.nan, 2.0]), r"NaN or infinity at \[1\]"),
        (
            lambda: stats.mean_interval([1.0, np.inf]),
            r"\. Decide .* diverged replica .* average\.$",
        ),
        (lambda: stats.mean_interval([1.0, 2.0], level=95), "level .* received 95"),
        (lambda: stats.mean_interval([1.0, 2.0], level=1.0), "received 1"),
        (lambda: stats.mean_interval([1.0, 2.0], level=0.0), "received 0"),
        (
            lambda: stats.paired_difference([1, 2], [1, 2, 3]),
            r"received 2 and 3\. Pair them by seed\.$",
        ),
        (lambda: stats.paired_difference([1, 2], [1, np.nan]), "^b must be finite"),
        (lambda: stats.paired_difference([1, np.nan], [1, 2]), "^a must be finite"),
        (lambda: stats.proportion_interval(5, 4), "successes=5, n=4"),
        (lambda: stats.proportion_interval(0, 0), "n >= 1"),
        (
            lambda: stats.proportion_interval(0.5, 4),
            "^counts must be whole numbers .* n >= 1; received",
        ),
        (lambda: stats.exact(1.0, -1.0), "tolerance"),
        (lambda: stats.exact(1.0, np.nan), "tolerance"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
