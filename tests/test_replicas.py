"""Batched training equals looped training, and nobody touches a neighbour."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lnlib import replicas
from lnlib.replicas import best_learning_rate, cross, initialise, minibatches, train

STEPS = 12
X = torch.randn(48, 5, generator=torch.Generator().manual_seed(0)).double()
Y = X[:, :1] - X[:, 1:2] * X[:, 2:3]


def draw(generator):
    weights = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    return {"W": weights / 3, "b": torch.zeros(1, 8).double(), "v": weights.mT[:, :1]}


def loss(p, x, y):
    out = torch.tanh(x @ p["W"] + p["b"]) @ p["v"]
    return (out - y).square().mean((-2, -1))


def run(seeds, lr, steps=STEPS, **options):
    batches = minibatches([X, Y], 16, seeds)
    return train(
        loss, initialise(seeds, draw), lr=lr, steps=steps, batches=batches, **options
    )


def looped(seed, lr, optimizer, clip, schedule=lambda done: 1.0):
    """Train one replica the ordinary way: nn parameters, torch.optim, torch's clip."""
    start = draw(torch.Generator().manual_seed(seed))
    p = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    opt = (
        torch.optim.Adam(p.values(), lr=lr)
        if optimizer == "adam"
        else torch.optim.SGD(p.values(), lr=lr, momentum=0.9)
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda n: schedule(n / STEPS))
    losses = []
    batches = minibatches([X, Y], 16, [seed])
    for _ in range(STEPS):
        x, y = next(batches)
        opt.zero_grad()
        value = loss(p, x[0], y[0])
        value.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(p.values(), clip)
        opt.step()
        scheduler.step()
        losses.append(value.item())
    return p, losses


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_batched_equals_looped(optimizer, clip):
    seeds, rates = [3, 1, 3], [0.01, 0.03, 0.1]
    momentum = 0.9 if optimizer == "sgd" else 0.0
    history = run(seeds, rates, optimizer=optimizer, momentum=momentum, clip=clip)
    for r in range(3):
        p, losses = looped(seeds[r], rates[r], optimizer, clip)
        np.testing.assert_allclose(history.losses[:, r], losses, rtol=1e-10)
        for name, value in p.items():
            torch.testing.assert_close(
                history.parameters[name][r], value.data, rtol=1e-10, atol=1e-10
            )
    assert not history.diverged.any()
    assert history.losses[-1, 2] < history.losses[0, 2]


def steep(p, slope):
    return (p["w"] * slope).sum(1)


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ([1.0, 1.0, 2.0], [[-0.6, -0.8], [-0.3, -0.4], [-1.2, -1.6]]),
        (1.0, [[-0.6, -0.8], [-0.3, -0.4], [-0.6, -0.8]]),
        ([np.inf, 0.1, np.inf], [[-3, -4], [-0.06, -0.08], [-3e30, -4e30]]),
    ],
)
def test_clipping_is_per_replica_and_survives_huge_gradients(clip, expected):
    slope = torch.tensor([[3.0, 4.0], [0.3, 0.4], [3e30, 4e30]])  # squares overflow
    start = {"w": torch.zeros(3, 2)}
    history = train(
        steep, start, lr=1, steps=1, batches=[(slope,)], optimizer="sgd", clip=clip
    )
    torch.testing.assert_close(history.parameters["w"], torch.tensor(expected) * 1.0)


def poison(kind, p, value):
    """Spoil replica 1: its loss alone, its gradient alone (0 times inf), or both."""
    if kind == "gradient":
        root = (p["W"][1] * 0).square().sum().sqrt()
        return value + torch.stack([0 * root.detach(), root, 0 * root.detach()])
    if kind == "loss":  # its gradient stays finite
        return value + torch.tensor([0.0, torch.inf, 0.0]).double()
    return value * torch.tensor([1.0, torch.nan, 1.0]).double()


@pytest.mark.parametrize("kind", ["loss", "gradient", "both"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_a_diverged_replica_is_frozen_and_alone(kind, optimizer, clip):
    seeds, calls = [0, 1, 2], iter(range(STEPS))
    options = {"optimizer": optimizer, "clip": clip, "lr": 0.03, "momentum": 0.9}

    def spoilt(p, x, y):
        value = loss(p, x, y)
        return value if next(calls) < 4 else poison(kind, p, value)

    batches = minibatches([X, Y], 16, seeds)
    start = initialise(seeds, draw)
    history = train(spoilt, start, steps=STEPS, batches=batches, **options)
    healthy, before = run(seeds, **options), run(seeds, steps=4, **options)
    assert history.diverged_at.tolist() == [-1, 4, -1]
    assert history.diverged.tolist() == [False, True, False]
    assert history.losses[:, 1].isnan().tolist() == [False] * 4 + [True] * (STEPS - 4)
    assert torch.equal(history.losses[:, [0, 2]], healthy.losses[:, [0, 2]])
    for name, value in history.parameters.items():
        assert torch.equal(value[[0, 2]], healthy.parameters[name][[0, 2]])
        assert torch.equal(value[1], before.parameters[name][1])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_replica_that_diverged_once_stays_frozen(optimizer):
    def spoilt(p, x):
        return p["w"].square().sum(1) + x

    bad = torch.tensor([0.0, torch.nan])
    batches = [(torch.zeros(2),)] * 2 + [(bad,)] + [(torch.zeros(2),)] * 3
    options = {"lr": 0.1, "batches": batches, "optimizer": optimizer}
    start = {"w": torch.ones(2, 1)}
    history, before = (train(spoilt, start, steps=n, **options) for n in (6, 2))
    assert history.diverged_at.tolist() == [-1, 2]
    assert history.losses[:, 1].isnan().tolist() == [False] * 2 + [True] * 4
    assert history.parameters["w"][1] == before.parameters["w"][1]
    assert history.parameters["w"][0] < before.parameters["w"][0]


def test_sgd_has_no_momentum_unless_asked():
    start, batches = {"w": torch.ones(1, 1)}, [()] * 2
    plain = train(
        lambda p: p["w"].sum(1),
        start,
        lr=0.1,
        steps=2,
        batches=batches,
        optimizer="sgd",
    )
    torch.testing.assert_close(plain.parameters["w"], torch.tensor([[0.8]]))


def test_clipping_survives_tiny_gradients():
    slope = torch.tensor([[3e-20, 4e-20], [3e-3, 4e-3]])  # squares of the first are 0
    history = train(
        lambda p, x: (p["w"] * x).sum(1),
        {"w": torch.zeros(2, 2)},
        lr=1,
        steps=1,
        batches=[(slope,)],
        optimizer="sgd",
        clip=torch.tensor([1e-21, 1.0]),
    )
    expected = -slope * torch.tensor([[1e-21 / (5e-20 + 1e-6)], [1.0]])
    torch.testing.assert_close(history.parameters["w"], expected, atol=0, rtol=1e-5)


def test_freed_memory_is_kept(monkeypatch):
    told = []
    libc = SimpleNamespace(mallopt=lambda *pair: told.append(pair))
    monkeypatch.setattr(replicas.ctypes, "CDLL", lambda name: libc)
    for system, options in (("glibc", [-3, -2, -1]), ("", [])):  # as in malloc.h
        told.clear()
        monkeypatch.setattr(
            replicas.platform, "libc_ver", lambda system=system: (system, "2")
        )
        run([0], 0.03, steps=1)
        assert sorted(option for option, _ in told) == options
        assert all(2**26 <= value < 2**31 for _, value in told)  # 64 MB, and an int


def test_a_learning_rate_that_explodes_is_reported():
    def quartic(p, x):
        return (p["w"] - x).pow(4).sum(1)

    start = {"w": torch.ones(3, 1)}
    batches = [(torch.zeros(1),)] * 50
    options = {"steps": 50, "batches": batches, "optimizer": "sgd"}
    history = train(quartic, start, lr=[0.01, 5.0, 0.02], **options)
    alone = train(quartic, {"w": torch.ones(2, 1)}, lr=[0.01, 0.02], **options)
    assert history.diverged.tolist() == [False, True, False]
    assert torch.equal(history.parameters["w"][[0, 2]], alone.parameters["w"])
    assert history.parameters["w"][1].isfinite()
    assert start["w"].eq(1).all()  # a single parameter is copied, too


def test_parameters_that_were_given_are_not_changed():
    start = initialise([0, 1], draw)
    copies = {name: value.clone() for name, value in start.items()}
    batches = minibatches([X, Y], 16, [0, 1])
    trained = train(loss, start, lr=0.1, steps=2, batches=batches).parameters
    for name, value in start.items():
        assert torch.equal(value, copies[name])
        assert trained[name].shape == value.shape
        assert not trained[name].requires_grad


def test_a_schedule_scales_every_learning_rate():
    def warm_up(done):
        return (1 + STEPS * done) / STEPS

    history = run([3, 3], [0.03, 0.1], schedule=warm_up)
    for r, lr in enumerate([0.03, 0.1]):
        _, losses = looped(3, lr, "adam", None, schedule=warm_up)
        np.testing.assert_allclose(history.losses[:, r], losses, rtol=1e-10)


def test_the_same_seeds_give_the_same_run():
    first, again = (run([0, 1], 0.03) for _ in range(2))
    assert torch.equal(first.losses, again.losses)
    assert not torch.equal(first.losses[:, 0], first.losses[:, 1])


def test_equal_seeds_share_initialisation_and_data_order():
    weights = initialise([5, 6, 5], draw)["W"]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])
    cases = torch.arange(10)
    source = minibatches([cases, -cases], 3, [5, 6, 5])
    epoch = [next(source) for _ in range(3)]
    x = torch.stack([batch[0] for batch in epoch])  # (batch, replica, case)
    assert torch.equal(x[:, 0], x[:, 2])
    assert not torch.equal(x[:, 0], x[:, 1])
    assert all(torch.equal(a, -b) for a, b in epoch)
    for r in range(3):  # an epoch shows no case twice
        assert len(x[:, r].unique()) == 9
    alone = next(minibatches([cases], 3, [6]))[0]
    assert torch.equal(alone[0], x[0, 1])  # whoever else is trained


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_cross_lists_every_combination(sizes):
    axes = {f"a{i}": np.arange(n) for i, n in enumerate(sizes)}
    flat = cross(**axes)
    rows = set(zip(*(v.tolist() for v in flat.values()), strict=True))
    assert len(rows) == np.prod(sizes) == len(flat["a0"])
    for axis, name in enumerate(axes):  # reshaping gives the axes back
        moved = np.moveaxis(flat[name].reshape(sizes), axis, -1)
        assert (moved == axes[name]).all()


GRID = [0.001, 0.01, 0.1, 1.0]


def test_the_best_learning_rate_has_the_best_mean():
    scores = np.array([[0.1, 0.5, 0.9, 0.2], [0.1, 0.9, 0.7, 0.2]])
    assert best_learning_rate(scores, GRID) == 2
    assert best_learning_rate(-scores, GRID, higher_is_better=False) == 2
    tie = [[0.5, 0.2, 0.5, 0.1]]
    assert best_learning_rate(tie, GRID) == 2  # the one inside the grid
    assert best_learning_rate([[0.1, -np.inf, 0.9, 0.1]], GRID) == 2
    assert best_learning_rate([[0.1, 0.9, 0.9, 0.2]], GRID) == 1  # the first inside
    assert best_learning_rate([["1", "3", "2"]], ["0.1", "0.2", "0.3"]) == 1
    assert best_learning_rate([[0.1, 0.9, 0.1]] * 2, [1, 2, 3]) == 1
    assert best_learning_rate([[0.1, 0.4, 0.4, 0.1], [0.1, 0.2, 0.4, 0.1]], GRID) == 2


@pytest.mark.parametrize(
    ("scores", "grid", "message"),
    [
        ([[0.9, 0.2, 0.1, 0.1]], GRID, r"layer .* 0.001 at the edge of \[0.001, 1\]"),
        (
            [[0.1, 0.2, 0.3, 0.4]],
            GRID,
            r"^the best .* layer .* received 1 at the edge.*\. "
            r"Extend the grid on that side\.$",
        ),
        ([[0.9]], [0.1], "^a learning-rate grid .* at least 3 .*; received"),
        ([[0.9, 0.8]], [0.1, 0.2], "at least 3"),
        ([[0.1, 0.9, 0.1]], [0.1, 0.3, 0.2], "increasing"),
        ([[0.1, 0.9, 0.1]], [0.0, 0.1, 0.2], "positive"),
        ([0.1, 0.9, 0.1, 0.1], GRID, r"\(replica, 4\); received \(4,\)"),
        ([[0.1, 0.9, 0.1]], GRID, r"\(replica, 4\); received \(1, 3\)"),
        (np.zeros((0, 4)), GRID, r"\(replica, 4\); received \(0, 4\)"),
        (
            [[0.1, np.nan, 0.9, 0.1]],
            GRID,
            r"must not be NaN; received 1\. Count a diverged .* such as chance\.$",
        ),
        (
            [[0.1] * 4, [0.2] * 4],
            GRID,
            r"layer must not all score .* 0\.15 at each .*, or for a score that cannot",
        ),
        ([[-np.inf] * 4], GRID, "must not all score the same; received -inf"),
    ],
)
def test_a_bad_grid_is_refused(scores, grid, message):
    with pytest.raises(ValueError, match=message):
        best_learning_rate(scores, grid, arm="layer")


def test_an_arm_without_a_name_is_this_arm():
    with pytest.raises(ValueError, match=r"^scores of this arm must have"):
        best_learning_rate([], GRID)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": [0.1, 0.2, 0.3]}, "each of 2 replicas"),
        ({"lr": -0.1}, "lr must be a positive number"),
        ({"clip": 0.0}, "clip must be a positive number"),
        ({"optimizer": "adm"}, "^optimizer must .* adam, sgd.*Did you mean 'adam'"),
        ({"batches": []}, "must last for 2 steps; received 0"),
        (
            {"parameters": {"w": torch.zeros(2, 1), "v": torch.zeros(3)}},
            r"leading.*\(2, 1\)",
        ),
        ({"parameters": {"w": torch.zeros(())}}, "leading replica axis"),
        ({"parameters": {}}, "leading replica axis"),
        ({"loss": lambda p, x: p["w"].sum()}, r"one value per replica, \(2,\)"),
    ],
)
def test_bad_input_is_refused(changes, message):
    good = {
        "loss": lambda p, x: p["w"].sum(1),
        "parameters": {"w": torch.zeros(2, 1)},
        "lr": 0.1,
        "steps": 2,
        "batches": [(X,), (X,)],
    }
    with pytest.raises(ValueError, match=message):
        train(**good | changes)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="between 1 and 48 cases; received 49"):
        next(minibatches([X, Y], 49, [0]))


def test_a_batch_may_hold_one_case_or_all():
    for size in (1, 48):
        (x,) = next(minibatches([X], size, [0, 1]))
        assert x.shape == (2, size, 5)
    source = minibatches([torch.arange(3)], 2, [0])  # what is left over is skipped
    sizes = {next(source)[0].shape for _ in range(6)}
    assert sizes == {(1, 2)}


def test_batches_and_parameters_live_where_they_are_asked_for():
    assert initialise([0, 1], draw, device="meta")["W"].is_meta
    (x,) = next(minibatches([X.to("meta")], 2, [0]))
    assert x.is_meta


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu():
    seeds = [0, 1, 2]
    options = {"lr": [0.01, 0.03, 0.1], "steps": STEPS, "clip": 1.0}
    start = initialise(seeds, draw, device="cuda")
    batches = minibatches([X.cuda(), Y.cuda()], 16, seeds)
    history = train(loss, start, batches=batches, **options)
    torch.testing.assert_close(history.losses.cpu(), run(seeds, **options).losses)
