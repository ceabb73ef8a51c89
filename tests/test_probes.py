"""The probes equal dense linear algebra."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lnlib.norms import make_norm
from lnlib.probes import (
    coupling,
    gradient_norms,
    jacobian,
    spectral_norm,
    spectral_radius,
)

DIM = 7


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 6))
def test_a_linear_map_is_its_own_jacobian(seed, rows, columns):
    A = normal(rows, columns, seed=seed)
    torch.testing.assert_close(jacobian(lambda x: A @ x, normal(columns)), A)
    norm = spectral_norm(lambda x: A @ x, normal(columns))
    assert norm == pytest.approx(torch.linalg.matrix_norm(A, 2).item(), rel=1e-6)


def test_layer_norms_jacobian_is_the_formula():
    x, eps = normal(DIM), 1e-3
    found = jacobian(make_norm("layer", DIM, eps=eps, dtype=x.dtype), x[None])
    centre = torch.eye(DIM, dtype=x.dtype) - 1 / DIM
    sigma = (x.var(correction=0) + eps).sqrt()
    unit = centre @ x / sigma
    expected = (centre - torch.outer(unit, unit) / DIM) / sigma
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["none", "layer", "rms", "group"])
def test_spectral_norm_of_a_network(name):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(DIM, 16), make_norm(name, 16), torch.nn.Tanh()
    ).double()
    x = normal(3, DIM)  # a batch counts as one vector
    dense = torch.linalg.matrix_norm(jacobian(net, x), 2).item()
    assert spectral_norm(net, x) == pytest.approx(dense, rel=1e-6)


@pytest.mark.parametrize("start", [None, 0, 7])
def test_spectral_norm_does_not_give_a_wrong_answer(start):
    A = 3 * torch.diag(torch.tensor([1.0, 0.9999, 0.5])).double()
    w = normal(3, seed=start or 0)
    for _ in range(3):  # the power iteration, written out
        v = w / w.norm()
        squared, w = (A @ v).square().sum(), A.mT @ A @ v
    residual = float((w - squared * v).norm() / squared)
    with pytest.raises(RuntimeError) as error:
        spectral_norm(
            lambda x: A @ x,
            normal(3),
            max_steps=3,
            generator=None if start is None else generator(start),
        )
    assert str(error.value) == (
        f"the power iteration must reach a residual of 1e-06; received {residual:.1e} "
        "after 3 steps. Raise max_steps or tolerance, or form the Jacobian."
    )


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_spectral_norm_has_no_scale(scale):
    A = scale * normal(4, 4)
    found = spectral_norm(lambda x: A @ x, normal(4))
    assert found == pytest.approx(torch.linalg.matrix_norm(A, 2).item(), rel=1e-6)


def test_spectral_norm_of_a_constant_is_zero():
    assert spectral_norm(lambda x: 0 * x, normal(3)) == 0


def test_spectral_radius_is_not_the_norm():
    J = torch.tensor([[[0.5, 100.0], [0.0, -0.25]], [[0.0, -2.0], [2.0, 0.0]]])
    expected = torch.tensor([0.5, 2.0])
    torch.testing.assert_close(spectral_radius(J), expected)
    torch.testing.assert_close(spectral_radius(J[0]), expected[0])
    stacked = J.repeat(3, 2, 1, 1)  # (3, 4, 2, 2)
    torch.testing.assert_close(spectral_radius(stacked), expected.repeat(3, 2))
    for wrong in ((2, 3), (2, 2, 3), (3,)):
        told = re.escape(f"J must be square, (…, n, n); received {wrong}")
        with pytest.raises(ValueError, match=told):
            spectral_radius(torch.ones(wrong))


@pytest.mark.parametrize("name", ["none", "layer", "rms", "group", "batch"])
def test_only_batch_norm_couples_samples(name):
    norm = make_norm(name, DIM, dtype=torch.float64)
    found = coupling(norm, normal(4, DIM))
    assert found > 0.1 if name == "batch" else found == 0


def test_coupling_equals_the_blocks_of_a_matrix():
    mix = normal(3, 3)
    found = coupling(lambda X: mix @ X, normal(3, 2))
    own = mix.diagonal().square().sum()
    expected = ((mix.square().sum() - own) / own).sqrt()
    assert found == pytest.approx(expected.item())
    with pytest.raises(ValueError, match="at least two samples; received 1"):
        coupling(lambda X: X, normal(1, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_small_coupling_is_not_lost(dtype):
    mix = torch.eye(3, dtype=dtype)
    mix[0, 1] = 1e-10
    found = coupling(lambda X: mix @ X, normal(3, 2).to(dtype))
    assert found == pytest.approx(1e-10 / 3**0.5, rel=1e-6)


def test_coupling_without_own_blocks_is_refused():
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double()
    told = (
        "^coupling must compare with what samples do to their own outputs; "
        "received a Jacobian whose diagonal blocks are 0$"
    )
    with pytest.raises(ValueError, match=told):
        coupling(lambda X: swap @ X, normal(2, 2))


def test_gradient_norms_by_depth():
    x = normal(5, 3).requires_grad_()
    hidden = 2 * x
    unused = normal(5, 3).requires_grad_()
    loss = (3 * hidden).sum(1)  # one per replica
    norms = gradient_norms(loss, [x, hidden, unused], keep=1)
    expected = torch.tensor([6.0, 3.0, 0.0], dtype=x.dtype)[:, None] * 3**0.5
    torch.testing.assert_close(norms, expected.expand(3, 5))
    total = gradient_norms(loss, [x, hidden])
    torch.testing.assert_close(total, norms[:2].square().sum(1).sqrt())


def test_probes_leave_no_graph_behind():
    net = torch.nn.Linear(3, 3).double()
    assert not jacobian(net, normal(3)).requires_grad
    x = normal(3).requires_grad_()
    spectral_norm(net, x)
    assert x.grad is None
    assert net.weight.grad is None
