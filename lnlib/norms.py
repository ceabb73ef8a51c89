"""The norms under study, behind one factory; torch's own operation where it has one.

`layer` and `rms` normalise the last axis.  `batch`, `group` and `instance` follow
torch: axis 1 holds the channels, `(batch, channel, *space)`.  With `replicas` every
input has one more leading axis, `(replica, batch, feature)`, and `gamma` and `beta` are
`(replica, 1, feature)`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lnlib.choices import choose

NORMS = ("none", "layer", "rms", "batch", "group", "instance")


class Norm(nn.Module):
    """A norm with parameters `gamma` and `beta`; make one with :func:`make_norm`."""

    gamma: Tensor | None
    beta: Tensor | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        name: str,
        scale: Tensor,
        affine: bool,
        eps: float,
        groups: int,
        replicas: bool,
    ) -> None:
        """Keep the settings; `scale` is the initial gamma."""
        super().__init__()
        self.name, self.dim, self.eps = name, scale.shape[-1], eps
        self.groups, self.replicas = groups, replicas
        scaled, shifted = name != "none", affine and name not in ("none", "rms")
        if affine and scaled:
            self.gamma = nn.Parameter(scale)
        else:
            self.register_buffer("gamma", scale if scaled else None)
        beta = nn.Parameter(torch.zeros_like(scale)) if shifted else None
        self.register_parameter("beta", beta)
        if name == "batch":
            self.register_buffer("running_mean", torch.zeros_like(scale).flatten())
            self.register_buffer("running_var", torch.ones_like(scale).flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`; raise ValueError if its features are not on their axis."""
        axis = -1 if self.name in ("none", "layer", "rms") else 1 + self.replicas
        if x.dim() < 2 + self.replicas or x.shape[axis] != self.dim:
            raise ValueError(
                f"the input of {self.name} norm must have {self.dim} features on axis "
                f"{axis}; received shape {tuple(x.shape)}"
            )
        batch = self.name == "batch"
        return normalise(
            self.name,
            x,
            self.gamma,
            self.beta,
            eps=self.eps,
            groups=self.groups,
            replicas=self.replicas,
            running=(self.running_mean, self.running_var) if batch else None,
            training=self.training,
        )

    def extra_repr(self) -> str:
        """Return the settings as they stand in `repr`."""
        return f"{self.name!r}, {self.dim}, eps={self.eps}"


def make_norm(
    name: str,
    dim: int,
    *,
    eps: float = 1e-5,
    affine: bool = True,
    gamma: float | Tensor = 1.0,
    groups: int = 1,
    replicas: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Norm:
    """Return the norm called `name` over `dim` features or channels.

    `gamma` is the initial scale: a number, or a tensor that broadcasts to the shape of
    the parameter, such as `(replica, 1, 1)`.  `affine=False` freezes it and leaves out
    `beta`; `rms` has no `beta`; `none` has neither.  `batch` keeps running statistics
    for evaluation mode.

    Raises:
        ValueError: unknown name, or `groups` that is not a divisor of `dim`.
    """
    choose("norm", name, NORMS)
    if dim < 1 or groups < 1 or dim % groups:
        raise ValueError(
            "dim and groups must be positive, and dim a multiple of groups; received "
            f"dim={dim}, groups={groups}"
        )
    shape = (dim,) if replicas is None else (replicas, 1, dim)
    scale = torch.ones(shape, dtype=dtype, device=device)
    scale *= torch.as_tensor(gamma, device=device)
    return Norm(name, scale, affine, eps, groups, replicas is not None)


def normalise(
    name: str,
    x: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    eps: float = 1e-5,
    groups: int = 1,
    replicas: bool = False,
    running: tuple[Tensor, Tensor] | None = None,
    training: bool = True,
) -> Tensor:
    """Apply the norm called `name` to `x`: the operation without a module.

    Without `running` statistics `batch` uses those of the batch.

    Raises:
        ValueError: unknown name, or `instance` without an axis to average over.
    """
    choose("norm", name, NORMS)
    if name == "none":
        return x
    after = 0 if name in ("layer", "rms") else x.dim() - (3 if replicas else 2)
    if name == "instance" and x.shape[x.dim() - after :].numel() < 2:
        raise ValueError(
            "instance norm must have a spatial axis with two or more positions; "
            f"received shape {tuple(x.shape)}. For feature vectors take 'layer'."
        )
    if name == "layer":
        y = F.layer_norm(x, x.shape[-1:], eps=eps)
    elif name == "rms":
        y = F.rms_norm(x, x.shape[-1:], eps=eps)
    elif name == "batch":  # replicas stand side by side, each with channels of its own
        flat = x.transpose(0, 1).flatten(1, 2) if replicas else x
        mean, var = running or (None, None)
        y = F.batch_norm(flat, mean, var, training=training or not running, eps=eps)
        y = y.reshape(x.transpose(0, 1).shape).transpose(0, 1) if replicas else y
    else:
        flat = x.flatten(0, 1) if replicas else x
        group = name == "group"
        y = (
            F.group_norm(flat, groups, eps=eps)
            if group
            else F.instance_norm(flat, eps=eps)
        )
        y = y.reshape(x.shape)
    if gamma is not None:
        y = y * _aligned(gamma, x.dim(), after)
    return y if beta is None else y + _aligned(beta, x.dim(), after)


def _aligned(parameter: Tensor, axes: int, after: int) -> Tensor:
    """Shape (dim,) or (replica, 1, dim) for `axes` axes, `after` of them behind dim."""
    behind = (1,) * after
    if parameter.dim() == 1:
        return parameter.reshape(-1, *behind)
    between = (1,) * (axes - after - 2)
    return parameter.reshape(len(parameter), *between, parameter.shape[-1], *behind)
