"""Put your own network to the test: the book's probes on any `nn.Module`, in one call.

report = examine(model, batch)
print(report)
report.figure().savefig("checkup.svg")
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.hooks import RemovableHandle

from lnlib import figures
from lnlib.probes import coupling, jacobian, spectral_norm

PROJECTIONS = 8  # random directions of the output that the coupling is measured in
FORMED = 4_000_000  # entries of a Jacobian that is still formed
MASKS = 16  # passes over which dropout's effect is averaged
ALIKE = 1e-3  # spread over samples, relative to size, below which they are alike
NEAR_EPSILON = 10.0  # a variance below this many epsilons is near it
SHIFTED = 1.05  # a variance that dropout raises by more than this is shifted

NORMS = (
    nn.LayerNorm, nn.RMSNorm, nn.GroupNorm,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@dataclass(frozen=True)
class Layer:
    """One call of a layer without layers of its own, in the order of the calls.

    `activation` is the root mean square of its output, `gradient` that of the gradient
    there of a random projection of the model's output, relative to the input's, and
    `spread` the standard deviation of the output over the samples, over the root mean
    square of the input or of the output, whichever is larger.
    For a norm `variance` is the smallest one that it divides by, `epsilon` its
    constant, `features` the numbers in one group, and `dropout` the factor by which
    dropout raises the variance of its input.
    """

    name: str
    kind: str
    activation: float
    spread: float
    gradient: float = math.nan
    variance: float = math.nan
    epsilon: float = math.nan
    features: int = 0
    dropout: float = 1.0


@dataclass(frozen=True)
class Checkup:
    """What :func:`examine` found.

    `coupling` is how much samples act on each other's outputs, relative to their own
    (0: not at all; NaN: the output does not depend on the input), in evaluation and in
    training mode.  `jacobian` is the spectral norm of the Jacobian from the first
    sample to its output, NaN if it could not be found.  `scale` and `offset` are the
    relative changes of the output when the input is doubled, and when one of its
    standard deviations is added to every entry.
    """

    coupling: float
    coupling_in_training: float
    jacobian: float
    scale: float
    offset: float
    layers: tuple[Layer, ...]

    def warnings(self) -> list[str]:
        """Return what the book's studies would look at first, worst cases by name."""
        told = []
        if self.coupling_in_training > 1e-6:
            told.append(
                "Samples of a batch act on each other in training "
                f"({self.coupling_in_training:.2g} of their own effect)."
            )
        if self.coupling > 1e-6:
            told.append(
                f"They do so in evaluation mode, too ({self.coupling:.2g}): an output "
                "depends on who else is in the batch."
            )
        alike = [layer for layer in self.layers if layer.spread < ALIKE]
        if alike:
            told.append(
                f"All samples look alike behind {alike[0].name} ({alike[0].kind}): "
                f"their spread is {_share(alike[0].spread)}. A pool over the axes of "
                "the norm before it does this."
            )
        for layer in self.layers:
            if 0 < layer.features <= 2:
                told.append(
                    f"{layer.name} normalises over {layer.features} "
                    f"number{'s' * (layer.features > 1)}: what is left is "
                    + ("its shift." if layer.features == 1 else "a sign.")
                )
            elif layer.variance < NEAR_EPSILON * layer.epsilon:
                told.append(
                    f"{layer.name} divides by a variance of {layer.variance:.1g}, near "
                    f"its epsilon of {layer.epsilon:.1g}."
                )
            if layer.dropout > SHIFTED:
                told.append(
                    f"Dropout raises the variance that {layer.name} sees in training "
                    f"to {layer.dropout:.2f} times that in evaluation."
                )
        return told

    def __str__(self) -> str:
        """Return the report as a page of text."""
        width = max(len(layer.name) for layer in self.layers)
        lines = [
            f"samples act on each other: {self.coupling:.2g} in evaluation, "
            f"{self.coupling_in_training:.2g} in training",
            f"Jacobian from input to output, spectral norm: {self.jacobian:.3g}",
            f"input doubled: the output changes by {self.scale:.2g} of its size",
            f"input plus one standard deviation: by {self.offset:.2g}",
            "",
            f"{'layer':{width}}  {'kind':18}  activation  gradient  spread",
        ]
        lines += [
            f"{x.name:{width}}  {x.kind:18.18}  {x.activation:10.3g}  "
            f"{x.gradient:8.3g}  {x.spread:6.2g}"
            for x in self.layers
        ]
        told = self.warnings() or ["Nothing of what the book warns of was seen."]
        return "\n".join([*lines, "", *(f"- {warning}" for warning in told)])

    def figure(self) -> Figure:
        """Return activations and gradients by depth as a figure, in the book's look."""
        with plt.rc_context():
            figures.setup()
            fig, ax = plt.subplots(figsize=(figures.MAX_WIDTH, 3.0))
            depth = range(1, len(self.layers) + 1)
            lines = {
                "activation": ([x.activation for x in self.layers], "layer"),
                "gradient": ([x.gradient for x in self.layers], "rms"),
            }
            for name, (values, look) in lines.items():
                ax.semilogy(depth, values, label=name, **figures.ARMS[look])
            norms = [i for i, x in zip(depth, self.layers, strict=True) if x.features]
            for i in norms:
                ax.axvline(i, color=figures.INK, alpha=0.2, lw=4, zorder=0)
            ax.set(xlabel="layer, in the order of the calls (bars: norms)")
            ax.set_ylabel("root mean square")
            ax.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return fig


def examine(model: nn.Module, batch: Tensor, *, seed: int = 0) -> Checkup:
    """Look at `model` through the book's probes on `batch`, (sample, …), n ≥ 3.

    It works on a copy in float64: the model, its mode, its parameters and running
    statistics stay as they are.  The coupling is that of the first three samples, and
    the Jacobian that of the first; everything else uses all of them.

    Raises:
        TypeError: `model` is no module, `batch` no tensor of floating-point numbers, or
            the output no such tensor.
        ValueError: fewer than three samples, NaN or infinity, an output without a
            sample axis, or a model that in evaluation mode is no function of its input:
            it changes its own state, or answers the same question differently.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module; received {type(model).__name__}. Wrap a "
            "function in a module whose forward calls it."
        )
    if not isinstance(batch, Tensor) or not batch.is_floating_point():
        got = batch.dtype if isinstance(batch, Tensor) else type(batch).__name__
        raise TypeError(
            f"batch must be a tensor of floating-point numbers; received {got}. Where "
            "the input is tokens, pass their embeddings to the part behind them."
        )
    if batch.dim() < 2 or len(batch) < 3:
        raise ValueError(
            "batch must have the shape (sample, …) with at least three samples; "
            f"received {tuple(batch.shape)}"
        )
    if not batch.isfinite().all():
        raise ValueError("batch must be finite; received NaN or infinity")
    net = copy.deepcopy(model).double().requires_grad_(False)
    X = batch.detach().double()
    with torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH):
        torch.manual_seed(seed)
        net.eval()
        y = _function(net, X)
        R = torch.randn(y[0].numel(), PROJECTIONS, dtype=y.dtype, device=y.device)
        R /= math.sqrt(len(R))

        def projected(x: Tensor) -> Tensor:
            out: Tensor = net(x).flatten(1) @ R
            return out

        size = y.square().mean().sqrt()
        with torch.no_grad():
            doubled, moved = net(2 * X), net(X + X.std())
        few = X[:3]
        layers = _layers(net, X, R)
        found = {
            "coupling": _coupling(projected, few),
            "jacobian": _largest(net, few[:1]),
            "scale": float((doubled - y).square().mean().sqrt() / size),
            "offset": float((moved - y).square().mean().sqrt() / size),
        }
        net.train()
        apart = _coupling(projected, few)
    return Checkup(**found, coupling_in_training=apart, layers=layers)


def _share(spread: float) -> str:
    return f"{spread:.1g} of the size" if spread > 1e-12 else "zero, up to rounding"


def _coupling(f: Callable[[Tensor], Tensor], X: Tensor) -> float:
    """Return the coupling; NaN where no sample acts on its own output."""
    try:
        return coupling(f, X)
    except ValueError:
        return math.nan


def _largest(net: nn.Module, x: Tensor) -> float:
    """Return the spectral norm of the Jacobian, NaN where it cannot be found."""
    try:
        return spectral_norm(net, x, tolerance=1e-3, max_steps=500)
    except RuntimeError:  # no largest value stands out, or all of them are rounding
        pass
    with torch.no_grad():
        entries = net(x).numel() * x.numel()
    if entries > FORMED:
        return math.nan
    return float(torch.linalg.matrix_norm(jacobian(net, x), ord=2))


def _function(net: nn.Module, X: Tensor) -> Tensor:
    """Return the output; refuse a model that is no function of its input."""
    before = {name: value.clone() for name, value in net.named_buffers()}
    with torch.no_grad():
        y, again = net(X), net(X)
    if not isinstance(y, Tensor) or not y.is_floating_point():
        got = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(
            f"the model's output must be a tensor of floating-point numbers; received "
            f"{got}. Wrap the model in a module whose forward returns the part to test."
        )
    if y.dim() < 1 or len(y) != len(X):
        raise ValueError(
            f"the output must have one entry per sample, ({len(X)}, …); received "
            f"{tuple(y.shape)}. A loss is no output."
        )
    changed = [
        name
        for name, value in net.named_buffers()
        if name not in before or not torch.equal(value, before[name])
    ]
    if changed or not torch.equal(y, again):
        why = f"it changes {', '.join(changed)}" if changed else "two answers differ"
        raise ValueError(
            "in evaluation mode the model must be a function of its input; received "
            f"one that is not: {why}. Reset its state in forward, and draw no random "
            "numbers there."
        )
    if not y.isfinite().all():
        raise ValueError("the model's output must be finite; received NaN or infinity")
    return y


Hook = Callable[[nn.Module, tuple[object, ...], object], None]


@contextmanager
def _hooked(net: nn.Module, hook: Callable[[str], Hook]) -> Iterator[None]:
    """Call a hook after every layer that has no layers of its own."""
    handles: list[RemovableHandle] = []
    for name, part in net.named_modules():
        if not list(part.children()) or isinstance(part, nn.MultiheadAttention):
            handles.append(part.register_forward_hook(hook(name or "model")))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layers(net: nn.Module, X: Tensor, R: Tensor) -> tuple[Layer, ...]:
    """Return every layer as it is called, with the gradient of a projected output."""
    found: list[Layer] = []
    gradients: dict[int, float] = {}
    inputs: list[tuple[int, float]] = []  # of norms: place in `found`, mean variance

    def watch(name: str) -> Hook:
        def look(part: nn.Module, given: tuple[object, ...], out: object) -> None:
            out = out[0] if isinstance(out, tuple) else out
            if not isinstance(out, Tensor) or not out.is_floating_point():
                return
            place = len(found)
            size = float(out.detach().square().mean().sqrt())
            spread = float(out.detach().std(0, correction=0).square().mean().sqrt())
            whole = max([size, *(_size(x) for x in given[:1])])
            layer = Layer(name, type(part).__name__, size, spread / (whole or 1.0))
            if isinstance(part, NORMS) and isinstance(given[0], Tensor):
                groups = _groups(part, given[0].detach())
                v = _divisors(part, groups)
                least = float(_running(part, v).min())
                eps = torch.finfo(out.dtype).eps if part.eps is None else part.eps
                layer = replace(
                    layer, variance=least, epsilon=eps, features=groups.shape[-1]
                )
                inputs.append((place, float(v.mean())))
            found.append(layer)
            if out.requires_grad:
                out.register_hook(
                    lambda g: gradients.update({place: float(g.square().mean().sqrt())})
                )

        return look

    x = X.clone().requires_grad_()
    with _hooked(net, watch):
        y = net(x)
    (at_input,) = torch.autograd.grad((y.flatten(1) @ R[:, 0]).sum(), x)
    unit = float(at_input.square().mean().sqrt()) or math.nan
    layers = [
        replace(layer, gradient=gradients.get(i, math.nan) / unit)
        for i, layer in enumerate(found)
    ]
    for i, factor in _dropout(net, X, inputs):
        layers[i] = replace(layers[i], dropout=factor)
    return tuple(layers)


def _dropout(
    net: nn.Module, X: Tensor, still: list[tuple[int, float]]
) -> Iterator[tuple[int, float]]:
    """Yield by how much dropout, and nothing else, raises the variance norms see."""
    sources = [m for m in net.modules() if isinstance(m, DROPOUTS) and m.p > 0]
    attention = [
        m for m in net.modules() if isinstance(m, nn.MultiheadAttention) and m.dropout
    ]
    if not sources and not attention:
        return
    seen: list[float] = []

    def watch(_: str) -> Hook:
        def look(part: nn.Module, given: tuple[object, ...], _: object) -> None:
            if isinstance(part, NORMS) and isinstance(given[0], Tensor):
                v = _divisors(part, _groups(part, given[0]))
                seen.append(float(v.mean()))

        return look

    for part in (*sources, *attention):
        part.training = True
    with torch.no_grad(), _hooked(net, watch):
        for _ in range(MASKS):
            net(X)
    net.eval()
    means = torch.tensor(seen).reshape(MASKS, -1).mean(0).tolist()
    for (place, before), after in zip(still, means, strict=True):
        yield place, after / before if before else 1.0


def _size(x: object) -> float:
    """Return the root mean square of a tensor, 0 of anything else."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return 0.0
    return float(x.detach().square().mean().sqrt())


def _running(part: nn.Module, v: Tensor) -> Tensor:
    """Return what the norm divides by in evaluation mode, squared."""
    running: Tensor | None = getattr(part, "running_var", None)
    return v if running is None else running


def _divisors(part: nn.Module, groups: Tensor) -> Tensor:
    """Return the variance of each group; the mean square for RMSNorm."""
    if isinstance(part, nn.RMSNorm):
        return groups.square().mean(-1)
    return groups.var(-1, correction=0)


def _groups(part: nn.Module, x: Tensor) -> Tensor:
    """Return the input of a norm as (…, numbers that share one variance)."""
    if isinstance(part, nn.LayerNorm | nn.RMSNorm):
        return x.flatten(x.dim() - len(part.normalized_shape))
    if isinstance(part, nn.GroupNorm):
        return x.reshape(len(x), part.num_groups, -1)
    if isinstance(part, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d):
        return x.flatten(2)
    return x.transpose(0, 1).flatten(1)  # batch norms: one group per channel
