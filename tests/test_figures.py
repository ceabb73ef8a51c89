"""Figures are one inline SVG each, for light and dark pages, for everyone."""

import itertools
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import axe
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from lnlib import figures

CSS = Path(__file__).parents[1] / "book" / "_static" / "lnlib.css"
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


# ------------------------------------------------------------------ sliders

CAPTION = "A parabola, exact; n = 50 points."


def parabola(height, limits=(0, 9), **more):
    """Draw a frame: a parabola and its alt text."""
    fig, ax = plt.subplots(**{"figsize": (5.6, 2.4)} | more)
    x = np.linspace(-1, 1, 50)
    ax.plot(x, height * x**2, color=figures.COLOURS["layer"])
    ax.set(xlabel="x", ylabel="height" if height < 5 else "the\nheight", ylim=limits)
    ax.text(0, 8, f"{height:g} x²")
    return fig, f"A parabola that rises to {height:g} at both ends."


def slide(draw=parabola, values=(1, 3, 9), name="height", **more):
    figures.slide(draw, values, name, CAPTION, **more)


def test_a_slider_has_a_frame_for_each_value(shown):
    slide(form="{:.1f} m")
    figure = parse(shown[0])
    frames = figure.findall("div[@class='lnlib-frame']")
    told = ["1.0 m", "3.0 m", "9.0 m"]
    assert [frame.get("data-value") for frame in frames] == told
    assert [frame.get("hidden") for frame in frames] == [None, "", ""]
    alts = [frame.find(f"{SVG}svg").get("aria-label") for frame in frames]
    assert alts == [f"A parabola that rises to {h} at both ends." for h in (1, 3, 9)]
    slider, label, output = (
        figure.find(f".//{tag}") for tag in ("input", "label", "output")
    )
    assert label.get("for") == output.get("for") == slider.get("id")
    assert label.text == "height"
    assert (slider.get("min"), slider.get("max")) == ("0", "2")
    assert slider.get("aria-valuetext") == output.text == told[0]
    assert slider.get("autocomplete") == "off"  # a browser would restore it alone
    # JupyterLab reads this one: without it the arrow keys move from cell to cell.
    assert slider.get("data-lm-suppress-shortcuts") == "true"
    assert figure.find("figcaption").text == CAPTION
    assert shown[0]["text/plain"] == (
        f"[figure: {alts[0]}] [slider: height: 1.0 m, 3.0 m, 9.0 m]"
    )
    assert not plt.get_fignums()


def test_the_first_frame_can_be_chosen(shown):
    slide(first=3, name="height & <more>")
    figure = parse(shown[0])
    frames = figure.findall("div[@class='lnlib-frame']")
    assert [frame.get("hidden") for frame in frames] == ["", None, ""]
    assert [frame.get("data-first") for frame in frames] == [None, "", None]
    assert frames[1].get("data-told") == "height & <more>: 3"
    assert figure.find(".//input").get("value") == "1"
    assert figure.find(".//output").text == "3"
    assert "rises to 3" in shown[0]["text/plain"]


def test_frames_share_letters_and_all_references_resolve(shown):
    slide()
    slide(values=(2, 3, 8))
    slide(name="another")
    pages = [bundle["text/html"] for bundle in shown]
    ids = [re.findall(r'\bid="([^"]+)"', page) for page in pages]
    for page, own in zip(pages, ids, strict=True):
        assert len(own) == len(set(own))
        used = re.findall(r'(?:href="#|url\(#|for=")([^")]+)', page)
        assert set(used) <= set(own)
        drawn = re.findall(r'<path id="[^"]+"([^>]*)/>', page)
        assert len(drawn) == len(set(drawn)) > 5  # each letter once
    sliders = {re.search(r'<input id="([^"]+)"', page)[1] for page in pages}
    assert len(sliders) == len(pages)


def test_axes_get_the_room_that_they_have_in_every_frame():
    figs = [parabola(height)[0] for height in (1, 9)]  # one label is wider
    for fig in figs:
        fig.draw_without_rendering()
    places = [fig.axes[0].get_position().extents for fig in figs]
    assert abs(places[0] - places[1]).max() > 0.01
    figures._align(figs)
    for fig in figs:
        fig.draw_without_rendering()
        place = fig.axes[0].get_position().extents
        assert place == pytest.approx([*places[1][:2], *places[0][2:]], abs=1e-6)


def test_axes_stand_still_in_a_slider(shown):
    slide()
    ground = r'patch_2"><path d="([^"]*)"'  # what lies behind the axes
    places = re.findall(ground, shown[0]["text/html"])
    assert len(places) == 3
    assert len(set(places)) == 1


def test_rounding_leaves_the_alt_text_alone(shown):
    slide(lambda h: (parabola(h)[0], f"It rises to {h * 1.23456} at the end."))
    assert 'aria-label="It rises to 1.23456 at the end."' in shown[0]["text/html"]
    path = re.search(r'<path d="(M[^"]*)" clip-path', shown[0]["text/html"])[1]
    assert path.count("L") > 10  # the parabola
    assert not re.search(r"\d\.\d{3}", path)


def test_a_slider_is_the_same_each_time(shown):
    slide()
    slide()
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"values": [1]}, "2 to 15 values; received 1"),
        ({"values": range(20)}, "2 to 15 values; received 20"),
        ({"name": " "}, "must have a name"),
        (
            {"values": [0.123, 0.124], "form": "{:.2f}"},
            r"differently; received \['0.12'",
        ),
        ({"first": 2}, r"one of \[1, 3, 9\]; received 2"),
        (
            {"draw": lambda h: (parabola(h)[0], "always the same")},
            "different alt texts",
        ),
        ({"draw": lambda h: (parabola(h)[0], " " * h)}, "different alt texts"),
        ({"draw": lambda h: parabola(h, (0, h))}, "same limits.*3 has .*Set xlim"),
        ({"draw": lambda h: parabola(h, figsize=(5, 2 + h / 10))}, "same size"),
        ({"draw": lambda h: parabola(h, figsize=(7, 2))}, "5.6 inches wide"),
        (
            {"draw": lambda h: (parabola(h)[0], CAPTION[: 40 // h])},
            "alt and",
        ),
    ],
)
def test_a_slider_that_misleads_is_refused(change, complaint, shown):
    with pytest.raises(ValueError, match=complaint):
        slide(**change)
    assert not shown
    assert not plt.get_fignums()


@pytest.mark.parametrize("wrong", [lambda h: parabola(h)[0], lambda h: None])
def test_draw_returns_a_figure_and_its_alt_text(wrong, shown):
    with pytest.raises(TypeError, match="draw must return the figure and the alt text"):
        slide(wrong)
    assert not shown


def test_a_heavy_slider_is_refused(shown):
    def draw(height):
        fig, alt = parabola(height)
        noise = np.random.default_rng(0).uniform(0, 9, 20_000)
        fig.axes[0].plot(np.linspace(-1, 1, 20_000), noise + height * 1e-3)
        return fig, alt

    with pytest.raises(ValueError, match=r"at most 300000 bytes.*Draw fewer"):
        slide(draw)
    assert not shown


@pytest.fixture
def tab(browser, shown):
    """Open what was shown on a page as the book's, in a context of its own."""
    contexts = []

    def open_page(width=1280, theme="light", **more):
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, **more))
        page = contexts[-1].new_page()
        figure = shown[-1]["text/html"]
        page.set_content(
            f'<!DOCTYPE html><html data-theme="{theme}" lang="en"><head><title>A page'
            f"</title><style>{CSS.read_text('utf-8')}</style></head><body>"
            f'<main class="bd-article"><h1>A page</h1>{figure}</main></body></html>'
        )
        return page

    yield open_page
    for context in contexts:
        context.close()


def seen(page):
    """Return the alt texts of the pictures that can be seen."""
    pictures = page.get_by_role("img").all()
    return [p.get_attribute("aria-label") for p in pictures if p.is_visible()]


def test_the_slider_is_moved_by_keyboard(shown, tab):
    slide(form="{:.1f} m")
    page = tab()
    slider = page.get_by_role("slider", name="height")
    page.keyboard.press("Tab")
    assert slider.evaluate("e => e === document.activeElement")
    height = page.locator("figure").bounding_box()["height"]
    for key, told in [
        *(("ArrowRight", 3), ("ArrowRight", 9), ("ArrowRight", 9), ("ArrowLeft", 3)),
        *(("Home", 1), ("End", 9)),
    ]:
        page.keyboard.press(key)
        assert seen(page) == [f"A parabola that rises to {told} at both ends."]
        assert page.locator("output").inner_text() == f"{told:.1f} m"
        assert slider.get_attribute("aria-valuetext") == f"{told:.1f} m"
        assert page.locator("figure").bounding_box()["height"] == height


def test_each_figure_moves_alone(shown, tab):
    slide()
    one = shown.pop()
    slide(name="another")
    shown[-1] = {"text/html": one["text/html"] + shown[-1]["text/html"]}
    page = tab()
    page.get_by_label("another").fill("2")
    assert [alt.split()[5] for alt in seen(page)] == ["1", "9"]


def test_without_javascript_the_first_frame_is_a_plain_figure(shown, tab):
    slide(first=3)
    page = tab(java_script_enabled=False)
    assert seen(page) == ["A parabola that rises to 3 at both ends."]
    assert not page.get_by_label("height").is_visible()
    told = page.locator("[data-first]").evaluate  # no script of the page's own
    assert "height: 3" in told("e => getComputedStyle(e, '::before').content")


def test_print_has_the_first_frame_and_its_value(shown, tab):
    slide(first=3)
    page = tab()
    page.get_by_label("height").fill("2")
    assert seen(page) == ["A parabola that rises to 9 at both ends."]
    page.emulate_media(media="print")
    assert seen(page) == ["A parabola that rises to 3 at both ends."]
    assert not page.get_by_label("height").is_visible()
    told = page.locator("[data-first]").evaluate
    assert "height: 3" in told("e => getComputedStyle(e, '::before').content")
    page.emulate_media(media="screen")
    assert seen(page) == ["A parabola that rises to 9 at both ends."]
    assert told("e => getComputedStyle(e, '::before').content") == "none"


def test_a_slider_fits_a_phone(shown, tab):
    slide(name="standard deviation of the features, in their units", form="{:.7f}")
    page = tab(width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in ("label", "input", "output", "svg >> nth=0"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    assert page.locator("input").bounding_box()["width"] > 120
    assert page.locator("input").bounding_box()["height"] >= 24


@pytest.mark.parametrize("theme", GROUNDS)
def test_axe_finds_nothing_in_a_slider(shown, tab, theme):
    slide()
    assert axe.violations(tab(theme=theme)) == []


def test_axe_notices_a_slider_without_a_name(shown, tab):
    slide()
    shown[-1]["text/html"] = re.sub("<label.*?</label>", "", shown[-1]["text/html"])
    assert [rule for rule, _ in axe.violations(tab())] == ["label"]
