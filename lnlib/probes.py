"""Jacobians, spectral norms, coupling between samples, gradients by depth.

Each probe takes any function of a tensor, so any `nn.Module`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def jacobian(f: Function, x: Tensor) -> Tensor:
    """Return the Jacobian (out, in) of `f` at `x`, both flattened, in reverse mode."""
    J: Tensor = torch.autograd.functional.jacobian(
        lambda v: f(v.reshape(x.shape)).flatten(), x.detach().flatten(), vectorize=True
    )  # torch.func.jacrev is the same, but takes a second to import
    return J


def spectral_radius(J: Tensor) -> Tensor:
    """Return the largest absolute eigenvalue of the square matrices `J` (…, n, n).

    Raises:
        ValueError: the last two axes differ.
    """
    if J.dim() < 2 or J.shape[-1] != J.shape[-2]:
        raise ValueError(f"J must be square, (…, n, n); received {tuple(J.shape)}")
    eigenvalues: Tensor = torch.linalg.eigvals(J)
    return eigenvalues.abs().amax(-1)


def spectral_norm(
    f: Function,
    x: Tensor,
    *,
    generator: torch.Generator | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 10_000,
) -> float:
    """Return the largest singular value of the Jacobian J of `f` at `x`.

    Power iteration on JᵀJ; J is never formed.  Jᵀu is one backward pass, and Jv one
    through that pass, since Jᵀu is linear in u.  It ends when ‖JᵀJv - σ²v‖ is at most
    tolerance · σ²: then σ² is as close as that to some eigenvalue of JᵀJ.  It is a
    lower bound on the largest, and from a random start almost surely the largest.

    Raises:
        RuntimeError: not there after `max_steps`.
    """
    x = x.detach().requires_grad_()
    y = f(x)
    u = torch.zeros_like(y, requires_grad=True)
    (pulled,) = torch.autograd.grad(y, x, u, create_graph=True)  # Jᵀu
    generator = generator or torch.Generator().manual_seed(0)
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    for _ in range(max_steps):
        v = v / v.norm()
        (Jv,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
        (w,) = torch.autograd.grad(y, x, Jv, retain_graph=True)
        squared = Jv.square().sum()
        residual = (w - squared * v).norm()
        if residual <= tolerance * squared:
            return float(squared.sqrt())
        v = w
    raise RuntimeError(
        f"the power iteration must reach a residual of {tolerance:g}; received "
        f"{float(residual / squared):.1e} after {max_steps} steps. "
        "Raise max_steps or tolerance, or form the Jacobian."
    )


def coupling(f: Function, X: Tensor) -> float:
    """Return how much each sample of `X` (sample, …) acts on the others' outputs.

    This is ‖off-diagonal blocks‖ / ‖diagonal blocks‖ (Frobenius) of the Jacobian of `f`
    over the whole batch; 0 means that samples are independent.

    Raises:
        ValueError: fewer than two samples, or none that acts on its own output.
    """
    n = len(X)
    if n < 2:
        raise ValueError(f"coupling must have at least two samples; received {n}")
    blocks = jacobian(f, X).reshape(n, -1, n, X[0].numel()).square().sum((1, 3))
    own = blocks.diagonal().sum()
    if own == 0:
        raise ValueError(
            "coupling must compare with what samples do to their own outputs; "
            "received a Jacobian whose diagonal blocks are 0"
        )
    others = blocks.fill_diagonal_(0).sum()  # a difference of sums would lose it
    return float((others / own).sqrt())


def gradient_norms(loss: Tensor, tensors: Sequence[Tensor], keep: int = 0) -> Tensor:
    """Return the norm of the gradient of `loss` with respect to each of `tensors`.

    `tensors` are nodes of the graph, such as one activation per layer or time step.
    The first `keep` axes, such as replicas, are not summed over: the result has shape
    (tensor, *kept).  `loss` is a number, or one per replica.  A tensor that the loss
    does not use counts as 0.
    """
    gradients = torch.autograd.grad(
        loss.sum(), list(tensors), retain_graph=True, materialize_grads=True
    )
    return torch.stack([g.flatten(keep).square().sum(-1).sqrt() for g in gradients])
