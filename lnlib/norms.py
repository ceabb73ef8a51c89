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
    running_mean: Tensor | None
    running_var: Tensor | None

    def __init__(
        self, name: str, dim: int, eps: float, groups: int, replicas: int | None
    ) -> None:
        """Keep the settings; `make_norm` adds parameters and buffers."""
        super().__init__()
        self.name, self.dim, self.eps = name, dim, eps
        self.groups, self.replicas = groups, replicas

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, of the same shape."""
        self._check(x)
        running = None
        if self.running_mean is not None and self.running_var is not None:
            running = (self.running_mean, self.running_var)
        return normalise(
            self.name,
            x,
            self.gamma,
            self.beta,
            eps=self.eps,
            groups=self.groups,
            replicas=self.replicas is not None,
            running=running,
            training=self.training,
        )

    def extra_repr(self) -> str:
        """Return the settings as they stand in `repr`."""
        return f"{self.name!r}, {self.dim}, eps={self.eps}, replicas={self.replicas}"

    def _check(self, x: Tensor) -> None:
        lead = () if self.replicas is None else (self.replicas,)
        axis = -1 if self.name in ("none", "layer", "rms") else 1 + len(lead)
        fits = x.dim() >= 2 + len(lead) and x.shape[axis] == self.dim
        if not fits or x.shape[: len(lead)] != lead:
            rest = f" and {lead[0]} replicas on axis 0" if lead else ""
            raise ValueError(
                f"the input of {self.name} norm must have {self.dim} features on axis "
                f"{axis}{rest}; received shape {tuple(x.shape)}"
            )


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
        ValueError: unknown name, or `groups` that does not divide `dim`.
    """
    choose("norm", name, NORMS)
    if dim < 1 or dim % groups:
        raise ValueError(
            f"dim must be positive and a multiple of groups; received dim={dim}, "
            f"groups={groups}"
        )
    norm = Norm(name, dim, eps, groups, replicas)
    shape = (dim,) if replicas is None else (replicas, 1, dim)
    scale = torch.ones(shape, dtype=dtype, device=device)
    scale *= torch.as_tensor(gamma, device=device)
    plain, shifted = name == "none", affine and name not in ("none", "rms")
    trained = nn.Parameter(scale) if affine and not plain else None
    frozen = None if affine or plain else scale
    if frozen is None:
        norm.register_parameter("gamma", trained)
    else:
        norm.register_buffer("gamma", frozen)
    beta = nn.Parameter(torch.zeros_like(scale)) if shifted else None
    norm.register_parameter("beta", beta)
    mean = torch.zeros_like(scale).flatten() if name == "batch" else None
    norm.register_buffer("running_mean", mean)
    norm.register_buffer("running_var", None if mean is None else mean + 1)
    return norm


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
