"""One look for every figure: light and dark, colour-blind safe, with alt text.

:func:`show` puts ONE inline SVG into the page.  Its ink (text, axes, ticks) is
`currentColor` and its ground transparent, so it follows the page's theme; the colours
of data are mid tones with a contrast of at least 3:1 on white and on #121212.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Sequence
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
from numpy.typing import ArrayLike

INK = "#010203"  # stands for the page's own text colour; replaced in the SVG
MAX_WIDTH = 5.6  # inch; at 390 px wide the 10 pt text is still read
TINT = 50  # per cent of its colour in coloured text; the rest is the page's ink

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
    figure = (
        f'<figure class="lnlib-figure">{_svg(fig, alt, caption, width)}'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
    plt.close(fig)
    display({"text/html": figure, "text/plain": f"[figure: {alt}]"}, raw=True)  # type: ignore[no-untyped-call]


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


def _svg(fig: Figure, alt: str, caption: str, width: float) -> str:
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
