"""Figures are one inline SVG each, for light and dark pages, for everyone."""

import itertools
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from lnlib import figures

SVG = "{http://www.w3.org/2000/svg}"
GROUNDS = {"light": "#ffffff", "dark": "#121212"}
# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
BLIND = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context():
        mpl.use("agg")
        figures.setup()
        yield
        plt.close("all")


@pytest.fixture
def shown(monkeypatch):
    """Collect what `show` displays."""
    bundles = []
    monkeypatch.setattr(figures, "display", lambda b, raw: bundles.append(b))
    return bundles


def plot(arms=tuple(figures.ARMS)):
    fig, ax = plt.subplots()
    for i, arm in enumerate(arms):
        ax.plot([0, 1, 2], [i, i + 1, i], **figures.ARMS[arm], label=arm)
        figures.label_line(ax, 2, i, arm, figures.COLOURS[arm])
    ax.set(xlabel="gain $g$", ylabel="λ", title="Slopes")
    ax.errorbar([0, 1], [1, 2], [0.1, 0.2], color=figures.INK)
    ax.grid()
    ax.legend()
    return fig


def linear(colour):
    c = np.array(mpl.colors.to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """Return the contrast ratio of WCAG 2."""
    light = sorted(linear(c) @ (0.2126, 0.7152, 0.0722) + 0.05 for c in (a, b))
    return light[1] / light[0]


def lab(rgb):
    to_xyz = np.array(
        [
            [0.4124, 0.3576, 0.1805],
            [0.2126, 0.7152, 0.0722],
            [0.0193, 0.1192, 0.9505],
        ]
    )
    x, y, z = np.cbrt((to_xyz @ rgb.clip(0, 1)) / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def parse(bundle):
    return ElementTree.fromstring(bundle["text/html"])


def test_contrast_is_wcags():
    assert contrast("white", "black") == pytest.approx(21)
    assert contrast("#777777", "white") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("arm", figures.COLOURS)
def test_colours_are_seen_on_light_and_dark(arm, ground):
    assert contrast(figures.COLOURS[arm], GROUNDS[ground]) >= 3


@pytest.mark.parametrize(("ground", "ink"), [("light", "#323232"), ("dark", "#ced6dd")])
@pytest.mark.parametrize("arm", figures.COLOURS)
def test_coloured_text_is_read_on_light_and_dark(arm, ground, ink):
    pure, ink = (np.array(mpl.colors.to_rgb(c)) for c in (figures.COLOURS[arm], ink))
    share = figures.TINT / 100
    assert contrast(share * pure + (1 - share) * ink, GROUNDS[ground]) >= 4.5


@pytest.mark.parametrize("vision", ["full", *BLIND])
def test_arms_are_told_apart(vision):
    seen = {
        arm: lab(np.array(BLIND.get(vision, np.eye(3))) @ linear(colour))
        for arm, colour in figures.COLOURS.items()
    }
    for a, b in itertools.combinations(seen, 2):
        least = 25 if {a, b} <= {"none", "layer", "rms", "batch"} else 15
        assert np.linalg.norm(seen[a] - seen[b]) >= least, (a, b)
    assert len(set(figures.MARKERS.values())) == len(figures.MARKERS)
    assert figures.MARKERS.keys() == figures.COLOURS.keys() == figures.ARMS.keys()


def test_a_figure_has_alt_text_and_caption(shown):
    alt, caption = 'rises & "falls"', "Mean of <n> = 8 seeds & more."
    figures.show(plot(), alt, caption)
    figure = parse(shown[0])
    assert figure.tag == "figure"
    assert figure.get("class") == "lnlib-figure"
    svgs = figure.findall(f".//{SVG}svg")
    assert len(svgs) == 1
    assert svgs[0].get("role") == "img"
    assert svgs[0].get("aria-label") == alt
    assert figure.find("figcaption").text == caption
    assert shown[0]["text/plain"] == f"[figure: {alt}]"
    assert not plt.get_fignums()  # so that no second picture appears


def test_a_figure_scales_with_the_page(shown):
    figures.show(plot(), "alt", "caption")
    svg = parse(shown[0]).find(f"{SVG}svg")
    assert svg.get("width") is None
    assert svg.get("height") is None
    assert svg.get("viewBox") == "0 0 403.2 230.4"
    assert "max-width:538px" in svg.get("style")


def test_ink_is_the_pages_own_and_the_ground_is_transparent(shown):
    figures.show(plot(), "alt", "caption")
    page = shown[0]["text/html"]
    used = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", page))
    tinted = {
        f"color-mix(in srgb, {c} {figures.TINT}%, currentColor)"
        for c in figures.COLOURS.values()
    }
    assert used == {"none", "currentColor", *figures.COLOURS.values(), *tinted}
    for unwanted in ("<?xml", "<!DOCTYPE", "<metadata", "<style", figures.INK, "<text"):
        assert unwanted not in page


def test_ids_are_unique_over_figures_and_all_references_resolve(shown):
    figures.show(plot(), "first", "caption")
    figures.show(plot(), "second", "caption")
    figures.show(plot(), "first", "another caption")
    found = []
    for bundle in shown:
        page = bundle["text/html"]
        ids = re.findall(r'\bid="([^"]+)"', page)
        references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
        assert {a or b for a, b in references} <= set(ids)
        assert references
        found += ids
    assert len(found) == len(set(found))


SCRIPT = """
import matplotlib.pyplot as plt
from lnlib import figures
figures.display = lambda bundle, raw: print(bundle["text/html"])
figures.setup()
fig, ax = plt.subplots()
ax.plot([0, 1], [0, 1], **figures.ARMS["layer"])
ax.set_xlim(0, 0.5)
figures.show(fig, "alt", "caption")
"""


def test_a_figure_is_the_same_in_every_process():
    command = [sys.executable, "-c", SCRIPT]
    first, again = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == again
    assert "<svg" in first


def test_a_heat_map_writes_readable_numbers(shown):
    fig, ax = plt.subplots()
    values = np.linspace(0, 1, 42).reshape(2, 21)
    image = figures.heat_map(ax, values, ["a", "b"], range(21), ".4f")
    texts = {t.get_text(): t.get_color() for t in ax.texts}
    assert len(texts) == 42
    for text, colour in texts.items():
        assert contrast(colour, image.cmap(float(text))) >= 4.5
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    figures.show(fig, "alt", "caption")
    parse(shown[0])
    assert "fill: #ffffff" in shown[0]["text/html"]  # not the ink of the page


def test_a_label_stands_beside_its_line():
    fig, ax = plt.subplots()
    ax.plot([0, 1], [0, 1])
    label = figures.label_line(ax, 1, 1, "layer", figures.COLOURS["layer"])
    fig.canvas.draw()
    box = label.get_window_extent()
    assert box.x0 > ax.transData.transform((1, 1))[0]
    assert box.x1 <= fig.bbox.x1  # not cut off at the edge
    assert label.get_color() == figures.COLOURS["layer"]


@pytest.mark.parametrize(
    ("alt", "caption"), [("", "caption"), ("alt", "  "), ("the same", "the same ")]
)
def test_alt_and_caption_are_mandatory(alt, caption, shown):
    with pytest.raises(ValueError, match="alt and caption must both say something"):
        figures.show(plot(), alt, caption)
    assert not shown


def test_a_wide_figure_is_refused(shown):
    fig, _ = plt.subplots(figsize=(8, 3))
    with pytest.raises(ValueError, match=r"5.6 inches wide; received 8.00"):
        figures.show(fig, "alt", "caption")
    assert not shown
