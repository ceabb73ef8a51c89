"""The norms equal independent implementations, written from their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lnlib.norms import NORMS, make_norm, normalise

DIM, EPS = 6, 1e-3
VECTOR_NORMS = [name for name in NORMS if name != "instance"]
seeds = st.integers(0, 2**32 - 1)


def standardised(x, axes, eps=EPS):
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + eps)


def expected(name, x, gamma, beta, groups=1):
    """Compute the norm of x (batch, dim, *space) in numpy, loops and all."""
    if name == "none":
        return x
    if name == "layer":
        return standardised(x, -1) * gamma + beta
    if name == "rms":
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * gamma
    gamma, beta = (p.reshape(-1, *[1] * (x.ndim - 2)) for p in (gamma, beta))
    space = tuple(range(2, x.ndim))
    if name == "batch":
        return standardised(x, (0, *space)) * gamma + beta
    if name == "instance":
        return standardised(x, space) * gamma + beta
    y = np.empty_like(x)
    for sample in range(len(x)):
        for g in np.split(np.arange(x.shape[1]), groups):
            y[sample, g] = standardised(x[sample, g], tuple(range(x.ndim - 1)))
    return y * gamma + beta


def filled(norm, rng):
    """Give gamma and beta random values; return them as arrays."""
    shape = (3, 1, DIM) if norm.replicas else (DIM,)
    gamma, beta = rng.normal(size=shape), rng.normal(size=shape)
    with torch.no_grad():
        for parameter, value in ((norm.gamma, gamma), (norm.beta, beta)):
            if parameter is not None:
                parameter.copy_(torch.from_numpy(value))
    return gamma, beta


def shape_for(name, *lead):
    channels_last = name in ("none", "layer", "rms")
    return (*lead, 3, 5, DIM) if channels_last else (*lead, DIM, 3, 5)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("groups", [1, 3])
def test_matches_the_definition(name, groups):
    rng = np.random.default_rng(0)
    norm = make_norm(name, DIM, eps=EPS, groups=groups, dtype=torch.float64)
    gamma, beta = filled(norm, rng)
    shapes = [shape_for(name, 4)] + [(4, DIM)] * (name != "instance")
    for shape in shapes:
        x = rng.normal(2, 3, size=shape)
        found = norm(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(
            found, expected(name, x, gamma, beta, groups), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("groups", [1, 2])
def test_replicas_match_the_definition_one_by_one(name, groups):
    rng = np.random.default_rng(1)
    norm = make_norm(name, DIM, eps=EPS, groups=groups, replicas=3, dtype=torch.float64)
    gamma, beta = filled(norm, rng)
    shapes = [shape_for(name, 3, 4)] + [(3, 4, DIM)] * (name != "instance")
    for shape in shapes:
        x = rng.normal(2, 3, size=shape)
        found = norm(torch.from_numpy(x)).detach().numpy()
        for r in range(3):
            np.testing.assert_allclose(
                found[r],
                expected(name, x[r], gamma[r, 0], beta[r, 0], groups),
                rtol=0,
                atol=1e-12,
            )


@pytest.mark.parametrize("replicas", [None, 3])
def test_batch_norm_keeps_torchs_running_statistics(replicas):
    torch.manual_seed(0)
    lead = () if replicas is None else (replicas,)
    norm = make_norm("batch", DIM, replicas=replicas, dtype=torch.float64)
    theirs = [nn.BatchNorm1d(DIM, dtype=torch.float64) for _ in range(replicas or 1)]
    for _ in range(3):
        x = torch.randn(*lead, 8, DIM, dtype=torch.float64) * 2 + 1
        parts = x if replicas else x[None]
        reference = torch.stack([t(p) for t, p in zip(theirs, parts, strict=True)])
        torch.testing.assert_close(norm(x), reference if replicas else reference[0])
    norm.eval()
    reference = torch.stack([t.eval()(p) for t, p in zip(theirs, parts, strict=True)])
    torch.testing.assert_close(norm(x), reference if replicas else reference[0])


@pytest.mark.parametrize("name", VECTOR_NORMS)
def test_gradients_match_finite_differences(name):
    torch.manual_seed(0)
    x = torch.randn(4, DIM, dtype=torch.float64, requires_grad=True)
    gamma, beta = torch.randn(2, DIM, dtype=torch.float64).unbind()
    torch.autograd.gradcheck(lambda v: normalise(name, v, gamma, beta, eps=EPS), x)


def test_layer_norm_at_a_large_offset():
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)) + 1e4
    truth = standardised(x.numpy().astype(float), -1, 1e-5)

    def worst(y):
        return np.abs(y.numpy() - truth).max()

    variance = x.square().mean(-1, keepdim=True) - x.mean(-1, keepdim=True).square()
    one_pass = (x - x.mean(-1, keepdim=True)) / (variance.clamp(min=0) + 1e-5).sqrt()
    assert worst(make_norm("layer", 256, affine=False)(x)) < 5e-3
    assert worst(one_pass) > 0.1  # the classic slip, which the bound must catch
    assert make_norm("rms", 256, affine=False)(x).std(-1).max() < 2e-4


@settings(max_examples=30)
@given(seeds, st.floats(0.1, 10), st.floats(-10, 10))
def test_layer_norm_ignores_shift_and_scale_of_a_sample(seed, scale, shift):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, DIM)))
    y = normalise("layer", scale * x + shift, eps=0.0)
    torch.testing.assert_close(y, normalise("layer", x, eps=0.0))
    torch.testing.assert_close(y.mean(-1), torch.zeros(3, dtype=y.dtype))
    torch.testing.assert_close(normalise("layer", -x), -normalise("layer", x))


@given(seeds)
@settings(max_examples=20)
def test_only_batch_norm_mixes_samples(seed):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(4, DIM)))
    other = torch.cat([x[:1], x[1:] * 3 + 1])
    for name in VECTOR_NORMS:
        same = torch.equal(normalise(name, x)[0], normalise(name, other)[0])
        assert same == (name != "batch")


def test_gamma_is_set_and_frozen():
    frozen = make_norm("layer", DIM, affine=False, gamma=3.0)
    x = torch.randn(4, DIM)
    torch.testing.assert_close(frozen(x), 3 * normalise("layer", x))
    assert not list(frozen.parameters())
    per_replica = torch.tensor([1.0, 2.0], dtype=torch.float64).reshape(2, 1, 1)
    norm = make_norm("layer", DIM, replicas=2, gamma=per_replica)
    assert norm.gamma.shape == (2, 1, DIM)
    assert norm.gamma.dtype == torch.float32
    assert norm.gamma[1].eq(2).all()


@pytest.mark.parametrize(
    ("name", "trained"),
    [("none", []), ("rms", ["gamma"]), ("layer", ["beta", "gamma"])],
)
def test_parameters_by_name(name, trained):
    assert sorted(dict(make_norm(name, DIM).named_parameters())) == trained
    assert not list(make_norm(name, DIM, affine=False).parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: make_norm("lyaer", 4),
            "^norm must .* none, layer, rms.*Did you mean 'layer'",
        ),
        (
            lambda: normalise("btach", torch.ones(2, 2)),
            "^norm must .*Did you mean 'batch'",
        ),
        (lambda: make_norm("group", 6, groups=4), "^dim and groups .* dim=6, groups=4"),
        (lambda: make_norm("group", 6, groups=0), "positive.*groups=0"),
        (lambda: make_norm("group", 6, groups=-2), "positive.*groups=-2"),
        (lambda: make_norm("layer", 0), "dim=0"),
        (lambda: make_norm("layer", 4)(torch.ones(2, 5)), r"4 features.*\(2, 5\)"),
        (lambda: make_norm("batch", 4)(torch.ones(4, 2)), "features on axis 1"),
        (lambda: make_norm("batch", 4, replicas=2)(torch.ones(2, 4, 3)), "axis 2"),
        (lambda: make_norm("layer", 4, replicas=2)(torch.ones(2, 4)), r"\(2, 4\)"),
        (
            lambda: make_norm("instance", 4)(torch.ones(2, 4)),
            "^instance .* take 'layer'",
        ),
        (lambda: make_norm("instance", 4)(torch.ones(2, 4, 1)), r"\(2, 4, 1\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_smallest_sizes_are_normalised():
    assert make_norm("layer", 1)(torch.tensor([[3.0]])) == 0
    pair = make_norm("instance", 1, eps=0.0)(torch.tensor([[[1.0, 3.0]]]))
    assert pair.tolist() == [[[-1.0, 1.0]]]


def test_parameters_live_where_they_are_asked_for():
    for gamma in (2.0, torch.tensor(2.0, device="meta")):
        assert make_norm("layer", DIM, gamma=gamma, device="meta").gamma.is_meta


def test_none_has_no_scale_at_all():
    assert make_norm("none", DIM).gamma is None


def test_the_operation_alone_takes_one_group_and_the_batchs_statistics():
    x = torch.randn(5, DIM, generator=torch.Generator().manual_seed(0))
    running = torch.full((DIM,), 7.0), torch.full((DIM,), 3.0)
    torch.testing.assert_close(
        normalise("batch", x, running=running), normalise("batch", x)
    )
    torch.testing.assert_close(normalise("group", x), normalise("layer", x))
