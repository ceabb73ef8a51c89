"""The check-up of a reader's own model: what it finds, leaves alone and refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from studies import blocks
from torch import Tensor, nn

from lnlib.checkup import Checkup, examine


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def convolutional(norm: nn.Module, pool: bool = True) -> nn.Module:
    torch.manual_seed(0)
    end: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)] if pool else []
    width = 8 if pool else 8 * 64
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm, *end, nn.Flatten(), nn.Linear(width, 4)
    )


def perceptron(*middle: nn.Module, width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), *middle, nn.Linear(width, 3))


def warned(report: Checkup, words: str) -> bool:
    return any(words in warning for warning in report.warnings())


def test_a_linear_model_has_known_values() -> None:
    model = nn.Linear(8, 5, bias=False)
    W = model.weight.detach().double()
    X = draw(6, 8)
    report = examine(model, X)
    assert report.coupling == report.coupling_in_training == 0
    assert report.jacobian == pytest.approx(float(torch.linalg.matrix_norm(W, 2)), 1e-2)
    assert report.scale == pytest.approx(1.0)
    moved = X.double().std() * W.sum(1)
    size = (X.double() @ W.T).square().mean().sqrt()
    assert report.offset == pytest.approx(float(moved.square().mean().sqrt() / size))
    (layer,) = report.layers
    assert (layer.name, layer.kind) == ("model", "Linear")
    assert layer.activation == pytest.approx(float(size))
    assert report.warnings() == []
    assert "Nothing of what the book warns of was seen." in str(report)


def test_layer_norm_at_the_input_hides_scale_and_offset() -> None:
    torch.manual_seed(0)
    plain, normed = nn.Linear(8, 5), nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 5))
    X = draw(6, 8)
    assert examine(plain, X).offset > 0.1
    report = examine(normed, X)
    assert report.scale < 1e-4
    assert report.offset < 1e-4


def test_batch_norm_couples_in_training_alone() -> None:
    for norm, couples in ((nn.BatchNorm2d(8), True), (nn.GroupNorm(2, 8), False)):
        report = examine(convolutional(norm, pool=False), draw(6, 3, 8, 8))
        assert (report.coupling_in_training > 0.01) == couples
        assert warned(report, "act on each other in training") == couples
        assert report.coupling == 0
    still = nn.BatchNorm2d(8, track_running_stats=False)
    report = examine(convolutional(still, pool=False), draw(6, 3, 8, 8))
    assert report.coupling > 0.01
    assert warned(report, "in evaluation mode, too")


def test_a_pool_over_the_axes_of_its_norm_is_found() -> None:
    for norm, dead in ((nn.InstanceNorm2d(8), True), (nn.GroupNorm(1, 8), False)):
        report = examine(convolutional(norm), draw(6, 3, 8, 8))
        assert warned(report, "All samples look alike behind 2") == dead
        assert warned(report, "their spread is zero, up to rounding.") == dead
    alive = convolutional(nn.InstanceNorm2d(8), pool=False)
    assert not warned(examine(alive, draw(6, 3, 8, 8)), "look alike")


def test_dropout_before_a_norm_is_measured() -> None:
    def report(*middle: nn.Module) -> Checkup:
        return examine(perceptron(*middle, width=256), draw(32, 8))

    before = report(nn.Dropout(0.5), nn.LayerNorm(256))
    (norm,) = (x for x in before.layers if x.kind == "LayerNorm")
    # E[v] = v + p/(1-p) (1-1/d) (mean² + v), with the mean near 0
    assert norm.dropout == pytest.approx(2, abs=0.1)
    assert warned(before, "Dropout raises the variance that 2 sees")
    assert not warned(report(nn.LayerNorm(256), nn.Dropout(0.5)), "Dropout")
    assert not warned(report(nn.Dropout(0.0), nn.LayerNorm(256)), "Dropout")


@pytest.mark.parametrize(("width", "says"), [(1, "its shift"), (2, "a sign")])
def test_one_or_two_features_are_too_few(width: int, says: str) -> None:
    report = examine(perceptron(nn.LayerNorm(width), width=width), draw(6, 8))
    assert warned(report, says)
    wide = examine(perceptron(nn.LayerNorm(16)), draw(6, 8))
    assert not warned(wide, says)


def test_a_variance_near_epsilon_is_found() -> None:
    tiny = examine(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 3)), 1e-3 * draw(6, 8))
    assert warned(tiny, "near its epsilon")
    assert not warned(examine(nn.LayerNorm(8), draw(6, 8)), "near its epsilon")
    batch = perceptron(nn.BatchNorm1d(16))
    assert not warned(examine(batch, draw(6, 8)), "near its epsilon")
    batch[1].running_var.fill_(1e-6)  # type: ignore[union-attr,operator,index]
    assert warned(examine(batch, draw(6, 8)), "near its epsilon")


def test_gradients_are_those_of_autograd() -> None:
    model = perceptron(nn.Tanh())
    report = examine(model, draw(6, 8))
    ratio = report.layers[0].gradient / report.layers[1].gradient
    x = draw(6, 8).double()
    net = perceptron(nn.Tanh()).double()
    torch.manual_seed(0)
    R = torch.randn(3, 8, dtype=torch.float64) / 3**0.5
    a = net[0](x)  # type: ignore[index]
    b = net[1](a)  # type: ignore[index]
    loss = (net[2](b) @ R[:, 0]).sum()  # type: ignore[index]
    ga, gb = torch.autograd.grad(loss, (a, b))
    assert ratio == pytest.approx(float(ga.norm() / gb.norm()), rel=1e-6)


def test_a_transformer_and_a_recurrent_network() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    report = examine(encoder, draw(4, 5, 16))
    kinds = [x.kind for x in report.layers]
    assert kinds.count("LayerNorm") == 4
    assert kinds.count("MultiheadAttention") == 2
    assert all(np.isfinite(x.gradient) for x in report.layers)
    assert report.coupling_in_training == 0

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.cell(x)[0][:, -1])
            return out

    assert [x.name for x in examine(Recurrent(), draw(4, 6, 4)).layers] == [
        "cell",
        "head",
    ]


def test_the_model_is_left_alone() -> None:
    model = convolutional(nn.BatchNorm2d(8)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    one = examine(model, draw(6, 3, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert str(examine(model, draw(6, 3, 8, 8))) == str(one)


class Told(nn.Module):
    """Answers as it is told to."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


class Counting(nn.Module):
    """Counts its calls, whatever the mode."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


@pytest.mark.parametrize(
    ("model", "batch", "error", "says"),
    [
        (torch.tanh, draw(4, 8), TypeError, "must be a torch.nn.Module"),
        (nn.Tanh(), [1.0], TypeError, "batch must be a tensor"),
        (nn.Tanh(), torch.ones(4, 8, dtype=torch.long), TypeError, "embeddings"),
        (nn.Tanh(), draw(2, 8), ValueError, "at least three samples"),
        (nn.Tanh(), draw(4, 8) / 0, ValueError, "batch must be finite"),
        (Told(lambda x: (x, x)), draw(4, 8), TypeError, "received tuple"),
        (Told(lambda x: x.argmax(1)), draw(4, 8), TypeError, "torch.int64"),
        (Told(lambda x: x.mean()), draw(4, 8), ValueError, "A loss is no output"),
        (Told(lambda x: x / 0), draw(4, 8), ValueError, "output must be finite"),
        (Told(lambda x: x + torch.randn(())), draw(4, 8), ValueError, "answers differ"),
        (Counting(), draw(4, 8), ValueError, "it changes calls"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    model: Any, batch: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        examine(model, batch)


def test_the_figure_shows_every_layer() -> None:
    report = examine(perceptron(nn.LayerNorm(16), nn.ReLU()), draw(6, 8))
    fig = report.figure()
    lines = {line.get_label(): line for line in fig.axes[0].lines}
    assert list(lines["activation"].get_ydata()) == [
        x.activation for x in report.layers
    ]
    assert list(lines["gradient"].get_ydata()) == [x.gradient for x in report.layers]
    plt.close(fig)


def test_the_page_tells_what_its_code_prints(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    first, second = blocks("your_own_model.md", "python")
    exec(first, names)
    told = capsys.readouterr().out
    (shown,) = blocks("your_own_model.md", "text")
    places = [told.index(line.split(" (0.")[0].split(" 2e-")[0]) for line in
              shown.strip().splitlines()]  # fmt: skip
    assert places == sorted(places)
    assert len(names["report"].warnings()) == len(places)
    exec(second, names)
    assert "Dropout raises" in capsys.readouterr().out
    assert (tmp_path / "checkup.svg").stat().st_size > 10_000
    plt.close("all")
