"""One look for every figure: light and dark, colour-blind safe, with alt text.

:func:`show` puts ONE inline SVG into the page.  Its ink (text, axes, ticks) is
`currentColor` and its ground transparent, so it follows the page's theme; the colours
of data are mid tones with a contrast of at least 3:1 on white and on #121212.
:func:`slide` puts one such SVG for each value of a slider that the reader moves.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

INK = "#010203"  # stands for the page's own text colour; replaced in the SVG
MAX_WIDTH = 5.6  # inch; at 390 px wide the 10 pt text is still read
TINT = 50  # per cent of its colour in coloured text; the rest is the page's ink
MAX_BYTES = 300_000  # of a whole figure, all frames together
MAX_FRAMES = 15

# What the slider does when it is moved.  It stands in the figure itself, so that it
# works in JupyterLab, too, which loads no script of the book.
MOVE = (
    "const all=this.closest('figure').querySelectorAll('.lnlib-frame'),"
    "now=all[this.value];"
    "for(const frame of all)frame.hidden=frame!==now;"
    "this.nextElementSibling.value=now.dataset.value;"
    "this.setAttribute('aria-valuetext',now.dataset.value)"
)

COLOURS = {
    "none": "#6b6b6b",
    "layer": "#1a66dc",
    "rms": "#d67412",
    "batch": "#0daa64",
    "group": "#d956ce",
    "instance": "#796821",
}
MARKERS = {
    "none": "o",
    "layer": "s",
    "rms": "^",
    "batch": "D",
    "group": "v",
    "instance": "P",
}
INKED = (
    *("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"),
    *("grid.color", "hatch.color", "patch.edgecolor", "boxplot.boxprops.color"),
    *("boxplot.whiskerprops.color", "boxplot.capprops.color"),
)
ARMS = {arm: {"color": COLOURS[arm], "marker": MARKERS[arm]} for arm in COLOURS}


def setup() -> None:
    """Set matplotlib's defaults for all figures of a notebook."""
    style: dict[Any, Any] = {
        **dict.fromkeys(INKED, INK),
        "figure.figsize": (MAX_WIDTH, 3.2),
        "figure.constrained_layout.use": True,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "axes.prop_cycle": cycler(color=list(COLOURS.values())[1:]),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 10,
        "axes.titlesize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "grid.alpha": 0.2,
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
        "image.cmap": "cividis",
        "image.interpolation": "none",
    }
    mpl.rcParams.update(style)


def show(fig: Figure, alt: str, caption: str) -> None:
    """Display `fig` as an HTML `<figure>` with one inline SVG, and close it.

    `alt` says the figure to someone who cannot see it; `caption` says what is seen,
    with n and what the bands are.  Both are plain text.

    Raises:
        ValueError: `alt` or `caption` is empty, both are equal, or the figure is wider
            than `MAX_WIDTH`.
    """
    alt, caption = alt.strip(), caption.strip()
    figure = (
        f'<figure class="lnlib-figure">{_svg(fig, alt, caption)}'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
    plt.close(fig)
    display({"text/html": figure, "text/plain": f"[figure: {alt}]"}, raw=True)  # type: ignore[no-untyped-call]


def slide(
    draw: Callable[[Any], tuple[Figure, str]],
    values: Sequence[Any],
    name: str,
    caption: str,
    *,
    form: str = "{}",
    first: Any = None,
) -> None:
    """Display a figure that the reader moves: one frame for each of `values`.

    `draw(value)` returns the figure for one value and its alt text.  `name` says what
    the slider moves; a value is written as `form.format(value)`.  The frame of `first`,
    or else of the first value, is shown at the start, without JavaScript and in print.

    All frames are drawn now and lie in the page, so that nothing is computed or loaded
    when the slider moves.  Axes are given the same place in each.

    Raises:
        TypeError: `draw` returns anything but a figure and a text.
        ValueError: there are fewer than two values or more than `MAX_FRAMES`; `name` is
            empty; two values are written alike, or two frames have the same alt text;
            `first` is not among the values; frames differ in their size, or in the
            number or the limits of their axes; all frames together have more than
            `MAX_BYTES`; or what `show` raises.
    """
    values, name, caption = list(values), name.strip(), caption.strip()
    told = [form.format(value) for value in values]
    _check_slider(name, values, told, first)
    figs, alts = [], []
    try:
        for value in values:
            fig, alt = _checked(draw(value))
            figs.append(fig)
            alts.append(alt)
        _check_frames(figs, alts, told)
        _align(figs)
        frames = [_svg(fig, alt, caption) for fig, alt in zip(figs, alts, strict=True)]
    finally:
        for fig in figs:
            plt.close(fig)
    start = 0 if first is None else values.index(first)
    figure = _slider_html(name, told, start, _share(frames), caption)
    if len(figure.encode()) > MAX_BYTES:
        raise ValueError(
            f"a figure must have at most {MAX_BYTES} bytes, all frames together; "
            f"received {len(figure.encode())}. Draw fewer frames, or fewer points."
        )
    plain = f"[figure: {alts[start]}] [slider: {name}: {', '.join(told)}]"
    display({"text/html": figure, "text/plain": plain}, raw=True)  # type: ignore[no-untyped-call]


def label_line(ax: Axes, x: float, y: float, text: str, colour: str) -> Annotation:
    """Write `text` just right of the point (x, y), in place of a legend."""
    return ax.annotate(
        text,
        (x, y),
        xytext=(5, 0),
        textcoords="offset points",
        color=colour,
        va="center",
        annotation_clip=False,
    )


def heat_map(
    ax: Axes,
    values: ArrayLike,
    rows: Sequence[object],
    columns: Sequence[object],
    form: str | None = None,
    **options: object,
) -> AxesImage:
    """Draw `values` (row, column) with the tick labels `rows` and `columns`.

    `form`, such as ".2f", writes each value into its cell, black or white, whichever is
    read better; `options` go to `imshow`.
    """
    values = np.asarray(values, dtype=float)
    image = ax.imshow(values, aspect="auto", **options)  # type: ignore[arg-type]
    ax.set_xticks(range(len(columns)), [str(c) for c in columns])
    ax.set_yticks(range(len(rows)), [str(r) for r in rows])
    ax.spines[:].set_visible(False)
    if form is not None:
        c = np.asarray(image.cmap(image.norm(values)))[..., :3]
        light = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        dark = light @ (0.2126, 0.7152, 0.0722) < 0.179  # both contrasts are 4.6:1
        for (row, column), value in np.ndenumerate(values):
            ink = "white" if dark[row, column] else "black"
            ax.text(column, row, f"{value:{form}}", color=ink, ha="center", va="center")
    return image


def _check_slider(name: str, values: list[Any], told: list[str], first: Any) -> None:
    if not name:
        raise ValueError("a slider must have a name that says what it moves")
    if not 2 <= len(values) <= MAX_FRAMES:
        raise ValueError(
            f"a slider must have 2 to {MAX_FRAMES} values; received {len(values)}"
        )
    if len(set(told)) < len(told):
        raise ValueError(
            f"the values of a slider must be written differently; received {told}. "
            "Write more digits with `form`."
        )
    if first is not None and first not in values:
        raise ValueError(f"first must be one of {values}; received {first!r}")


def _checked(frame: Any) -> tuple[Figure, str]:
    match frame:
        case (Figure() as fig, str() as alt):
            return fig, alt.strip()
    raise TypeError(
        "draw must return the figure and the alt text of a value; received "
        f"{type(frame).__name__}"
    )


def _check_frames(figs: list[Figure], alts: list[str], told: list[str]) -> None:
    if len(set(alts)) < len(alts):
        raise ValueError(
            "the frames of a slider must have different alt texts: say in each what it "
            f"shows. Received {alts}"
        )
    for value, fig in zip(told, figs, strict=True):
        want, have = _extent(figs[0]), _extent(fig)
        if want != have:
            raise ValueError(
                "all frames of a slider must have the same size and the same axes with "
                f"the same limits, so that nothing jumps; {told[0]} has {want}, "
                f"{value} has {have}. Set xlim and ylim in draw."
            )


def _extent(fig: Figure) -> tuple[Any, ...]:
    size = tuple(fig.get_size_inches().round(3).tolist())
    axes = [(ax.get_xlim(), ax.get_ylim()) for ax in fig.axes]
    return size, [tuple(round(float(v), 9) for v in (*x, *y)) for x, y in axes]


def _align(figs: list[Figure]) -> None:
    """Give the axes the room that they have in every frame."""
    for fig in figs:
        fig.draw_without_rendering()  # lays it out
    boxes = np.array([[ax.get_position().extents for ax in fig.axes] for fig in figs])
    room = np.concatenate([boxes[..., :2].max(0), boxes[..., 2:].min(0)], axis=-1)
    for fig in figs:
        fig.set_layout_engine("none")
        for ax, extents in zip(fig.axes, room, strict=True):
            ax.set_position(Bbox.from_extents(*extents))


def _share(frames: list[str]) -> list[str]:
    """Let a frame use the letters and markers that an earlier one has drawn.

    Places are rounded to a hundredth of a point, and blanks go.
    """
    known: dict[str, str] = {}
    same: dict[str, str] = {}

    def once(path: re.Match[str]) -> str:
        own, drawn = path.groups()
        same[own] = known.setdefault(drawn, own)
        return path[0] if same[own] == own else ""

    def named(use: re.Match[str]) -> str:
        return same.get(use[0], use[0])

    shared = []
    for frame in frames:
        head, body = frame.split(">", 1)  # the alt text in the head stays as it is
        body = re.sub(r"(?<=[ (\"-])([1-9]\d*\.\d\d)\d+", r"\1", body)
        body = re.sub(r'<path id="([^"]+)"([^>]*)/>', once, body)
        body = re.sub(r"<defs>\s*</defs>|(?<=>)\s+(?=<)", "", body)
        shared.append(head + ">" + re.sub(r'(?<=href="#)[^"]+', named, body))
    return shared


def _slider_html(
    name: str, told: list[str], start: int, frames: list[str], caption: str
) -> str:
    key = hashlib.sha256("\n".join([name, *told, *frames]).encode()).hexdigest()[:10]
    name, caption = html.escape(name), html.escape(caption)
    told = [html.escape(value) for value in told]
    shown = "".join(
        f'<div class="lnlib-frame" data-value="{value}" data-told="{name}: {value}" '
        f'{"data-first" if i == start else "hidden"}="">{frame}</div>'
        for i, (value, frame) in enumerate(zip(told, frames, strict=True))
    )
    return (
        '<figure class="lnlib-figure"><div class="lnlib-slider">'
        f'<label for="slider-{key}">{name}</label>'
        f'<input id="slider-{key}" type="range" min="0" max="{len(told) - 1}" step="1" '
        f'value="{start}" aria-valuetext="{told[start]}" autocomplete="off" '
        'data-lm-suppress-shortcuts="true" '  # or JupyterLab takes the arrow keys
        f'oninput="{html.escape(MOVE)}"/>'
        f'<output for="slider-{key}" aria-live="off" '
        f'style="min-width:{max(map(len, told))}ch">{told[start]}</output></div>'
        f"{shown}<figcaption>{caption}</figcaption></figure>"
    )


def _svg(fig: Figure, alt: str, caption: str) -> str:
    if not alt or not caption or alt == caption:
        raise ValueError(
            "alt and caption must both say something, and not the same; received "
            f"alt={alt!r}, caption={caption!r}"
        )
    width = float(fig.get_figwidth())
    if width > MAX_WIDTH + 1e-6:
        raise ValueError(
            f"a figure must be at most {MAX_WIDTH} inches wide; received {width:.2f}. "
            "Stack its panels."
        )
    salt = hashlib.sha256(f"{alt}\n{caption}".encode()).hexdigest()[:10]
    buffer = io.StringIO()
    nobody = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "path"}):
        fig.savefig(buffer, format="svg", transparent=True, metadata=nobody)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # no prolog, no doctype
    # matplotlib's style sheet would reach the whole page: the root carries it instead.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    # One page holds many figures: matplotlib's ids repeat, so each gets a prefix.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{salt}-", svg)
    svg = svg.replace(INK, "currentColor")
    # No colour reaches 4.5:1 on light and on dark: text in a colour leans to the ink.
    svg = re.sub(
        r'(-text_\d+">\s*(?:<!--.*?-->\s*)?<g style="fill: )(?!#fff)(#\w{6})',
        rf"\g<1>color-mix(in srgb, \g<2> {TINT}%, currentColor)",
        svg,
        flags=re.DOTALL,
    )
    style = f"width:100%;max-width:{96 * width:.0f}px;height:auto;"
    style += "stroke-linejoin:round;stroke-linecap:butt"
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(width|height|version)="[^"]*"', "", head)
    label = html.escape(alt)
    return f'{head} role="img" aria-label="{label}" style="{style}">{body.strip()}'
