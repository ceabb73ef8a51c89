"""The book, built from the results of tier quick, as a browser shows it.

Every check of a page is itself tested: on a page damaged in one place it must complain.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from html import escape, unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote, urljoin, urlsplit

import axe
import numpy as np
import pytest
import yaml
from docutils import nodes
from docutils.utils import new_document
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, TimeoutError
from pypdf import PdfReader
from studies import blocks, guarded

from lnlib import figures, runner, stability
from lnlib.claims import MAX_SEED, TIERS
from lnlib.registry import Paper, load_registry, paper_name
from lnlib.results import (
    Job,
    Project,
    Result,
    read_notebook,
    read_result,
    result_path,
)

pytestmark = pytest.mark.xdist_group("book")  # one worker builds, once

ROOT = Path(__file__).resolve().parents[1]
PROJECT = Project(ROOT, ROOT / "_build" / "test" / "results")
STUDIES = PROJECT.studies()
REPORT = (Path(__file__).parent / "page_report.js").read_text("utf-8")
VIEWS = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (390, "light")}
CHECKS = (
    *("faint", "wide", "overlap", "unlabelled", "raw", "order", "stuck", "unmarked"),
    *("outside", "console"),
)
# The theme's own: it declares a variable twice, and warns of a theme mode.
KNOWN_MESSAGES = ("THEBE_JS_URL", "invalid theme mode", "Got invalid theme mode")
REPOSITORY = "https://github.com/example/layer-norm-book"  # as it is published
START, BOARD = "book/intro.html", "book/verdicts.html"
GUIDE = "book/decision_guide.html"


# ------------------------------------------------------------------ the build


@pytest.fixture(scope="session")
def results() -> dict[str, Result]:
    """The result of each study at tier quick, made where it is missing or stale."""
    found = {}
    for study in STUDIES:
        job = Job(study, "quick")
        with guarded():
            outcome = runner.execute(job, PROJECT)  # waits while another runs it
        if outcome.error is not None:
            pytest.fail(f"no book without {job}: {outcome.error}", pytrace=False)
        runner.cache_result(job, runner.book_cache(PROJECT, "quick"), PROJECT)
        found[study] = read_result(result_path(job, PROJECT), PROJECT)
    return found


def build(root: Path, output: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Build the book of `root` below `output`, as strictly as `make book` does."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", str(root)]
    command += ["--path-output", str(output), "--all", "-W", "--keep-going", "-n"]
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "LNLIB_BOOK_TIER": "quick",
        "LNLIB_BOOK_REPOSITORY": REPOSITORY,
    }
    return subprocess.run(
        command,
        cwd=root,
        env=environment | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="session")
def book(results: dict[str, Result]) -> Path:
    """The folder of the pages."""
    output = ROOT / "_build" / "test"
    shutil.rmtree(output / "_build", ignore_errors=True)
    done = build(ROOT, output)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
    told = [line for line in said if re.search("warning|error", line, re.IGNORECASE)]
    if done.returncode != 0:
        pytest.fail("\n".join([*told, "...", *said[-20:]]), pytrace=False)
    assert "Executing notebook" not in done.stdout
    return output / "_build" / "html"


def pages(book: Path) -> list[str]:
    """Return the addresses of all pages, relative to the book."""
    found = sorted(path.relative_to(book).as_posix() for path in book.rglob("*.html"))
    return [p for p in found if p.split("/")[0] != "_static" and p != "index.html"]


# ------------------------------------------------------------------ the browser


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def address(book: Path) -> Iterator[str]:
    """The address of the book on this machine."""
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=book)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


Damage = Callable[[str], str]


class Reader:
    """Opens pages in one view and reports on them."""

    def __init__(self, context: BrowserContext, address: str, theme: str) -> None:
        self.context, self.address = context, address
        told = f"localStorage.setItem('theme', '{theme}');"
        context.add_init_script(told + f"localStorage.setItem('mode', '{theme}')")

    def open(self, page: str, damage: Damage | None = None) -> tuple[Page, dict]:
        """Open a page, as damaged, and return it with what it asked for and said."""
        tab = self.context.new_page()
        noise: dict[str, list[str]] = {"outside": [], "console": []}

        def asked(url: str) -> None:
            if not url.startswith((self.address, "data:", "blob:")):
                noise["outside"].append(url)

        def said(text: str) -> None:
            if not any(known in text for known in KNOWN_MESSAGES):
                noise["console"].append(text)

        tab.on("request", lambda request: asked(request.url))
        tab.on("console", lambda m: said(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda error: said(str(error)))
        if damage is not None:
            spoil = damage

            def serve(route: Any) -> None:
                answer = route.fetch()
                old = answer.text()
                new = spoil(old)
                assert new != old, "the damage must change the page"
                route.fulfill(response=answer, body=new)

            tab.route(self.address + page, serve)
        tab.goto(self.address + page)
        tab.wait_for_function(
            "!window.MathJax || !MathJax.startup || MathJax.startup.promise"
            ".then(() => true)"
        )
        return tab, noise

    def report(self, page: str, damage: Damage | None = None) -> dict[str, list[str]]:
        """Return what is wrong with a page, by check."""
        tab, noise = self.open(page, damage)
        try:
            return tab.evaluate(REPORT) | {k: list(v) for k, v in noise.items()}
        finally:
            tab.close()


@pytest.fixture(scope="session")
def readers(browser: Browser, address: str) -> Iterator[dict[str, Reader]]:
    """A reader for each view."""
    found = {}
    for name, (width, theme) in VIEWS.items():
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=theme)
        found[name] = Reader(context, address, theme)
    yield found
    for reader in found.values():
        reader.context.close()


@pytest.fixture(scope="session")
def reports(book: Path, readers: dict[str, Reader]) -> dict[tuple[str, str], Any]:
    """What is wrong with each page in each view."""
    return {
        (view, page): reader.report(page)
        for view, reader in readers.items()
        for page in pages(book)
    }


# ------------------------------------------------------------------ every page


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("view", VIEWS)
def test_pages(reports: dict[tuple[str, str], Any], view: str, check: str) -> None:
    wrong = {
        page: report[check]
        for (seen, page), report in reports.items()
        if seen == view and report[check]
    }
    assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False)


def after(place: str, more: str) -> Damage:
    """Return a damage that puts `more` after the last `place`."""
    return lambda html: (place + more).join(html.rsplit(place, 1))


WIDE = '<p><span style="display:inline-block;width:900px">wide</span></p>'
LEFT = '<mjx-container style="display:block;margin-left:-90px">x</mjx-container>'
LONG = '<div class="math" style="overflow:auto"><p style="min-width:2000px">x</p></div>'
H1 = "</h1>"
IMAGE = '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">'
FIGURE = '<figure class="lnlib-figure"><svg></svg></figure>'
PICTURE = '<svg role="img" aria-label="A line that rises to one."></svg>'
TEXTS = '<g id="text_1"><text y="9">a</text></g><g id="text_2"><text y="9">b</text></g>'
HIDDEN = (
    f'<figure class="lnlib-figure">{PICTURE}<div class="lnlib-frame" hidden>%s</div>'
    "<figcaption>One line.</figcaption></figure>"
)
DAMAGES: list[tuple[str, str, Damage]] = [
    ("faint", "light", after(H1, '<p style="color:#999">pale</p>')),
    ("faint", "dark", after(H1, '<p style="color:#333">murky</p>')),
    ("wide", "phone", after(H1, WIDE)),
    ("wide", "phone", after(H1, LEFT)),
    ("wide", "light", after(H1, LONG)),
    ("overlap", "light", after(H1, '<p style="margin-bottom:-2em">one</p><p>two</p>')),
    ("overlap", "light", after(H1, HIDDEN % PICTURE.replace("></", f">{TEXTS}</"))),
    ("unlabelled", "light", after(H1, IMAGE)),
    ("unlabelled", "light", after(H1, HIDDEN % "<svg></svg>")),
    ("unlabelled", "light", after(H1, FIGURE)),
    ("raw", "light", after(H1, "<p>\\(\\frac12\\) {cite:p}`key`</p>")),
    ("raw", "light", after(H1, "<p>at most 4.1e-05</p>")),
    ("raw", "light", after(H1, "<p>a change of -0.00</p>")),
    ("order", "light", after(H1, "<h1>again</h1>")),
    ("order", "light", after(H1, "<h4>deep</h4>")),
    ("order", "light", after(H1, '<i id="twin"></i><i id="twin"></i>')),
    ("stuck", "light", after(H1, '<div class="lnlib-scroll">no tabindex</div>')),
    ("stuck", "light", after(H1, '<input type="range" disabled>')),
    ("unmarked", "light", lambda html: html.replace("Quick tier", "Fine")),
    ("outside", "light", after(H1, '<img alt="a picture" src="http://192.0.2.1/a.png">')),
    ("console", "light", after(H1, "<script>throw new Error('broken')</script>")),
]  # fmt: skip


@pytest.mark.parametrize(("check", "view", "damage"), DAMAGES)
def test_a_damaged_page_is_noticed(
    readers: dict[str, Reader], check: str, view: str, damage: Damage
) -> None:
    before, now = (readers[view].report(START, d)[check] for d in (None, damage))
    assert now != before
    assert now


def test_every_check_has_a_damage() -> None:
    assert {check for check, _, _ in DAMAGES} == set(CHECKS)


# ------------------------------------------------------------------ axe-core


@pytest.fixture(scope="session")
def findings(book: Path, readers: dict[str, Reader]) -> dict[str, list[Any]]:
    """What axe-core finds on each page: the rule and the element."""
    found = {}
    for page in pages(book):
        tab, _ = readers["light"].open(page)
        found[page] = axe.violations(tab)
        tab.close()
    return found


def test_axe_finds_only_what_is_known_of_the_theme(
    findings: dict[str, list[Any]],
) -> None:
    new = {
        page: strange
        for page, found in findings.items()
        if (strange := [f for f in found if not axe.is_known(*f)])
    }
    assert not new, json.dumps(new, indent=1, ensure_ascii=False)


def test_a_known_finding_that_is_mended_is_struck_off(
    findings: dict[str, list[Any]],
) -> None:
    found = [f for page in findings.values() for f in page]
    gone = [
        (rule, mark)
        for rule, mark, _ in axe.KNOWN
        if not any(rule == r and mark in element for r, element in found)
    ]
    assert gone == []


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ("image-alt", '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">'),
        ("link-name", '<a href="#"></a>'),
        ("empty-table-header", "<table><tr><th></th></tr><tr><td>1</td></tr></table>"),
        ("select-name", "<select><option>one</option></select>"),
        ("svg-img-alt", '<figure class="lnlib-figure"><svg role="img"></svg></figure>'),
    ],
)
def test_axe_notices_a_damaged_page(
    readers: dict[str, Reader], rule: str, more: str
) -> None:
    tab, _ = readers["light"].open(START, after(H1, more))
    new = [r for r, element in axe.violations(tab) if not axe.is_known(r, element)]
    assert rule in new
    tab.close()


# ------------------------------------------------------------------ figures


def luminance(rgb: tuple[int, ...]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2)."""
    parts = [v / 255 for v in rgb[:3]]
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Return the contrast ratio of two colours (WCAG 2)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


FIGURE_TEXT = """svg => {
  const canvas = document.createElement('canvas').getContext('2d');
  const rgb = text => {
    canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("g[id*='text_']")]
    .filter(g => !g.querySelector("g[id*='text_']") && g.querySelector('use, path'))
    .map(g => {
      const ink = g.querySelector('use, path'), box = g.getBoundingClientRect();
      const said = g.innerHTML.match(/<!--(.*?)-->/)?.[1] || g.id;
      return {name: `${said} in: ${svg.getAttribute('aria-label')}`,
              ink: rgb(getComputedStyle(ink).fill),
              box: [box.left - frame.x, box.top - frame.y,
                    box.right - frame.x, box.bottom - frame.y]};
    });
}"""
HIDE_TEXT = ".lnlib-figure g[id*='text_'] { visibility: hidden !important }"
SHOW_FRAME = """svg => {
  const own = svg.closest('.lnlib-frame'), figure = svg.closest('figure');
  for (const f of figure.querySelectorAll('.lnlib-frame')) f.hidden = f !== own;
}"""


def faint_text(tab: Page) -> list[str]:
    """Return the texts in figures with less than 4.5:1 against what is behind."""
    pictures, texts = tab.query_selector_all(".lnlib-figure svg"), []
    for picture in pictures:
        picture.evaluate(SHOW_FRAME)
        texts.append(picture.evaluate(FIGURE_TEXT))
    tab.add_style_tag(content=HIDE_TEXT)
    found = []
    for picture, written in zip(pictures, texts, strict=True):
        picture.evaluate(SHOW_FRAME)
        behind = Image.open(io.BytesIO(picture.screenshot())).convert("RGB")
        for text in written:
            ground = behind.crop([round(v) for v in text["box"]]).resize((9, 5))
            pixels = np.asarray(ground).reshape(-1, 3).tolist()
            # A line may cross a text: what counts is what lies behind most of it.
            ratio = median(contrast(tuple(text["ink"]), c) for c in pixels)
            if ratio < 4.5:
                found.append(f"{ratio:.2f}: {text['name']}")
    return found


def chapter(study: str) -> str:
    """Return the address of a study's page."""
    return f"notebooks/{study}.html"


@pytest.mark.parametrize("view", ["light", "dark"])
@pytest.mark.parametrize("study", STUDIES)
def test_text_in_figures_is_legible(
    readers: dict[str, Reader], study: str, view: str
) -> None:
    tab, _ = readers[view].open(chapter(study))
    assert tab.query_selector(".lnlib-figure svg g[id*='text_']"), "no text in figures"
    assert faint_text(tab) == []
    tab.close()


@pytest.mark.parametrize("plate", ["#f2c9a0", "#444444"])
def test_a_plate_behind_figures_is_noticed(
    readers: dict[str, Reader], plate: str
) -> None:
    view = "dark" if plate == "#f2c9a0" else "light"
    style = f"<style>.lnlib-figure svg {{ background: {plate} }}</style>"
    tab, _ = readers[view].open(chapter(STUDIES[0]), after("</title>", style))
    assert faint_text(tab)
    tab.close()


def test_a_plate_behind_a_hidden_frame_is_noticed(readers: dict[str, Reader]) -> None:
    style = "<style>.lnlib-frame:not([data-first]) svg { background: #444 }</style>"
    tab, _ = readers["light"].open(chapter(SLID[0]), after("</title>", style))
    assert faint_text(tab)
    tab.close()


# ------------------------------------------------------------------ sliders

# The studies with a figure that the reader moves.
SLID = [
    study
    for study in STUDIES
    if "figures.slide(" in PROJECT.notebook(study).read_text("utf-8")
]


def test_many_chapters_have_a_figure_that_moves() -> None:
    assert len(SLID) >= 8


@pytest.mark.parametrize("view", ["light", "phone"])
@pytest.mark.parametrize("study", SLID)
def test_a_slider_is_moved_by_keyboard(
    readers: dict[str, Reader], study: str, view: str
) -> None:
    tab, noise = readers[view].open(chapter(study))
    moving = tab.locator(".lnlib-figure:has(input[type=range])")
    assert moving.count() > 0
    for figure in moving.all():
        slider, frames = figure.locator("input"), figure.locator("svg")
        high, told, seen = figure.bounding_box()["height"], [], []
        assert frames.locator("visible=true").count() == 1
        slider.focus()
        tab.keyboard.press("Home")
        for frame in frames.all():
            assert frame.is_visible()
            assert frames.locator("visible=true").count() == 1
            told.append(slider.get_attribute("aria-valuetext"))
            seen.append(frame.get_attribute("aria-label"))
            assert figure.locator("output").inner_text() == told[-1]
            assert abs(figure.bounding_box()["height"] - high) < 1
            tab.keyboard.press("ArrowRight")
        assert len(set(told)) == len(set(seen)) == len(told) > 1
    assert noise == {"outside": [], "console": []}
    tab.close()


def test_no_figure_is_heavy(book: Path) -> None:
    for page in pages(book):
        html = (book / page).read_text("utf-8")
        for figure in re.findall(
            r'<figure class="lnlib-figure">.*?</figure>', html, re.S
        ):
            assert len(figure.encode()) <= figures.MAX_BYTES, (page, figure[:500])


def signed_zeros(html: str) -> list[str]:
    """Return the zeros with a sign among the texts of figures, which are outlines."""
    return re.findall(r"<!-- ([-−]0(?:\.0+)?) -->", html)


def test_no_figure_shows_a_signed_zero(book: Path) -> None:
    assert signed_zeros("<!-- -0.00 --><!-- −0 --><!-- -0.01 --><!-- 0.00 -->") == [
        "-0.00",
        "−0",
    ]
    for page in pages(book):
        assert signed_zeros((book / page).read_text("utf-8")) == [], page


# ------------------------------------------------------------------ verdicts

SHOWN = """() => [...document.querySelectorAll(
    '.lnlib-card [data-claim], .lnlib-board [data-claim], .lnlib-verdict, .lnlib-ref'
  )].map(e => [e.dataset.claim, e.dataset.verdict,
    e.querySelector('.lnlib-badge').innerText.replace(/^\\S+\\s+/, '').trim()])"""


def disagreements(tab: Page, verdicts: dict[str, str]) -> list[Any]:
    """Return what the page shows that is not in `verdicts`, or lacks."""
    shown = tab.evaluate(SHOWN)
    wrong = [s for s in shown if not s[1] == s[2] == verdicts.get(s[0])]
    return wrong + sorted(verdicts.keys() - {s[0] for s in shown})


def all_verdicts(results: dict[str, Result]) -> dict[str, str]:
    """Return the verdict of every claim, from the executed notebooks."""
    return {c: v for result in results.values() for c, v in result.verdicts.items()}


@pytest.mark.parametrize("page", [START, BOARD])
def test_boards_show_the_verdicts_of_the_notebooks(
    readers: dict[str, Reader], results: dict[str, Result], page: str
) -> None:
    tab, _ = readers["light"].open(page)
    assert disagreements(tab, all_verdicts(results)) == []
    tab.close()


@pytest.mark.parametrize("study", STUDIES)
def test_a_chapter_shows_its_verdicts_twice(
    readers: dict[str, Reader], results: dict[str, Result], study: str
) -> None:
    tab, _ = readers["light"].open(chapter(study))
    verdicts = results[study].verdicts
    assert disagreements(tab, verdicts) == []
    for kind in (".lnlib-card li[data-claim]", ".lnlib-verdict[id]"):
        found = tab.eval_on_selector_all(kind, "all => all.map(e => e.dataset.claim)")
        assert sorted(found) == sorted(verdicts)
    assert tab.evaluate("document.querySelector('.lnlib-card').offsetTop") < 900
    tab.close()


def test_the_source_map_shows_verdicts(
    readers: dict[str, Reader], results: dict[str, Result]
) -> None:
    shown = []
    for page in ("book/sources/chapter.html", "book/sources/glossary.html"):
        tab, _ = readers["light"].open(page)
        shown += tab.evaluate(SHOWN)
        tab.close()
    verdicts = all_verdicts(results)
    of_texts = {
        claim.id
        for record in load_registry().values()
        for claim in record.claims
        if not isinstance(claim.source, Paper)
    }
    assert {s[0] for s in shown} == of_texts
    assert all(s[1] == s[2] == verdicts[s[0]] for s in shown)


def test_counts_add_up(readers: dict[str, Reader], results: dict[str, Result]) -> None:
    tab, _ = readers["light"].open(START)
    count = "e => [e.innerText.split(/\\s+/).at(-1), +e.dataset.count]"
    rows = tab.eval_on_selector_all(".lnlib-counts li", f"all => all.map({count})")
    verdicts = list(all_verdicts(results).values())
    assert sum(n for _, n in rows) == len(verdicts)
    for word, n in rows:
        assert sum(v.split()[-1] == word for v in verdicts) == n
    tab.close()


def swap(html: str) -> str:
    """Change verdicts in the board of a page, but not the words on their badges."""
    return re.sub(r'(<tr data-claim="[^"]+" data-verdict=)"holds"', r'\1"fails"', html)


def test_a_wrong_verdict_is_noticed(
    readers: dict[str, Reader], results: dict[str, Result]
) -> None:
    for damage in (swap, lambda html: re.sub("</span> holds<", "</span> fails<", html)):
        tab, _ = readers["light"].open(START, damage)
        assert disagreements(tab, all_verdicts(results))
        tab.close()


def test_verdicts_json(book: Path, results: dict[str, Result]) -> None:
    board = json.loads((book / "verdicts.json").read_text("utf-8"))
    measured = json.loads((ROOT / "book" / "stability.json").read_text("utf-8"))
    assert board["tier"] == "quick"
    found = {
        claim["claim"]: claim["verdict"]
        for study in board["studies"].values()
        for claim in study["claims"]
    }
    assert found == all_verdicts(results)
    for name, study in board["studies"].items():
        assert (book / study["page"]).is_file()
        assert all(claim["reach"]["scale"] for claim in study["claims"])
        assert study["run"]["tier"] == "quick"
        assert study["run"]["versions"] == results[name].run["versions"]
        kept = measured.get(name, [])
        now = {tier: stability.digest(name, tier, PROJECT) for tier in TIERS}
        assert study["seeds"] == [m for m in kept if m["inputs"] == now[m["tier"]]]


def test_findings_carry_the_numbers_of_the_run(book: Path, readable: Any) -> None:
    page = (book / BOARD).read_text("utf-8")
    board = json.loads((book / "verdicts.json").read_text("utf-8"))
    told = [c for s in board["studies"].values() for c in s["claims"] if c["finding"]]
    assert told
    for claim in told:
        assert escape(readable.readable(claim["finding"])) in page
        assert "{" not in claim["finding"]


# ------------------------------------------------------------------ the board, alive

ROWS = "tr[data-claim]:visible"


def choose(tab: Page, label: str, value: str) -> list[str]:
    """Choose in a list above the board; return the claims that are left, in order."""
    tab.get_by_label(label).select_option(value)
    return shown_claims(tab)


def shown_claims(tab: Page) -> list[str]:
    return [row.get_attribute("data-claim") or "" for row in tab.locator(ROWS).all()]


def test_the_board_is_filtered(
    readers: dict[str, Reader], results: dict[str, Result]
) -> None:
    tab, _ = readers["light"].open(START)
    verdicts = all_verdicts(results)
    told = tab.locator(".lnlib-tools output")
    assert told.inner_text() == f"{len(verdicts)} claims"
    rnn = results["rnn_fixed_points"].verdicts
    assert sorted(choose(tab, "Field", "RNN")) == sorted(rnn)
    assert told.inner_text() == f"{len(rnn)} of {len(verdicts)} claims"
    assert tab.locator("th[scope=rowgroup]:visible").count() == 1
    both = [c for c, v in rnn.items() if v == "holds"]
    assert sorted(choose(tab, "Verdict", "holds")) == sorted(both)
    holds = [c for c, v in verdicts.items() if v == "holds"]
    assert sorted(choose(tab, "Field", "")) == sorted(holds)
    tab.close()


def test_the_board_is_sorted_by_keyboard(readers: dict[str, Reader]) -> None:
    tab, _ = readers["light"].open(START)
    before, said = shown_claims(tab), tab.locator(f"{ROWS} a")
    head = tab.get_by_role("button", name="Claim")
    head.focus()
    for state, reverse in (("ascending", False), ("descending", True)):
        tab.keyboard.press("Enter")
        column = tab.get_by_role("columnheader", name="Claim")
        assert column.get_attribute("aria-sort") == state
        texts = [text.lower() for text in said.all_inner_texts()]
        assert texts == sorted(texts, reverse=reverse)
    tab.keyboard.press("Enter")
    assert column.get_attribute("aria-sort") is None
    assert shown_claims(tab) == before
    tab.close()


def test_the_board_is_a_plain_table_without_its_script(
    readers: dict[str, Reader], results: dict[str, Result]
) -> None:
    def mute(html: str) -> str:
        return re.sub(r"<script[^>]*lnlib\.js[^>]*></script>", "", html)

    tab, _ = readers["light"].open(START, mute)
    assert sorted(shown_claims(tab)) == sorted(all_verdicts(results))
    assert tab.locator(".lnlib-tools").count() == 0
    assert tab.locator("table.lnlib-compact button").count() == 0
    tab.close()


def test_no_measure_is_only_the_same_as_another(readers: dict[str, Reader]) -> None:
    tab, _ = readers["light"].open(START)
    effects = "all => all.map(e => e.title)"
    told = tab.eval_on_selector_all(".lnlib-effect", effects)
    same = [text for text in told if re.match("the same|as the ", text)]
    assert same
    assert [text for text in same if "(" not in text] == []
    tab.close()


def test_the_board_shows_what_was_measured(
    readers: dict[str, Reader], results: dict[str, Result]
) -> None:
    tab, _ = readers["light"].open(START)
    for study, result in results.items():
        for claim in PROJECT.record(study).claims:
            row = tab.locator(f'tr[data-claim="{claim.id}"]')
            outcomes = [
                e.get_attribute("data-outcome")
                for e in row.locator(".lnlib-effect").all()
            ]
            verdict = result.verdicts[claim.id]
            wanted = {
                "holds": ["met"],
                "fails": ["missed"],
                "conditional": ["met", "missed"],
            }
            assert outcomes == wanted.get(verdict, outcomes[:1])
            assert outcomes
    tab.close()


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0, "0"), (-4.4e-15, "≈ 0"), (2e-6, "2e-06"), (0.123, "0.12"), (190.4, "190")],
)
def test_the_board_is_brief(extension: Any, value: float, told: str) -> None:
    assert extension.brief(value) == told


@pytest.mark.parametrize("study", STUDIES)
def test_claims_are_restated_within_a_phone(
    readers: dict[str, Reader], study: str
) -> None:
    tab, _ = readers["phone"].open(chapter(study))
    (table,) = tab.locator("table.lnlib-restated").all()
    ids = [row.inner_text() for row in table.locator("tbody td:first-child").all()]
    assert ids == [claim.id for claim in PROJECT.record(study).claims]
    for refuted in table.locator("tbody td:last-child").all():
        box = refuted.bounding_box()
        assert box is not None
        assert 250 < box["width"] <= 390 - box["x"]
    tab.close()


# ------------------------------------------------------------------ reach

OPENED = """() => [...document.querySelectorAll('.lnlib-claims > li')].map(row => {
  for (const box of row.querySelectorAll('details')) box.open = true;
  return [row.dataset.claim, row.innerText];
})"""


def unsaid(extension: Any, tab: Page, study: str) -> list[str]:
    """Return what the opened rows of a study's claims lack of falsifier and reach."""
    record, rows = PROJECT.record(study), dict(tab.evaluate(OPENED))
    lacking = []
    for claim_id, reach in extension.load_reach(record).items():
        wanted = [record.claim(claim_id).falsifier, "Dispute a verdict"]
        wanted.append(f"Tested up to: {reach.scale}.")
        for paper in reach.beyond:
            wanted.append(f"{paper_name(paper.cite)}, {paper.at}: {paper.says}")
        if not reach.beyond:
            wanted.append("No evidence at a larger scale was found.")
        told = squeezed(rows.get(claim_id, ""))
        lacking += [f"{claim_id}: {t}" for t in wanted if squeezed(t) not in told]
    return lacking


@pytest.mark.parametrize("page", [BOARD, *map(chapter, STUDIES)])
def test_a_page_says_how_far_each_claim_was_tested(
    readers: dict[str, Reader], extension: Any, page: str
) -> None:
    tab, _ = readers["phone"].open(page)
    for study in STUDIES if page == BOARD else [Path(page).stem]:
        assert unsaid(extension, tab, study) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= VIEWS["phone"][0]
    tab.close()


@pytest.mark.parametrize("kind", ["falsifier", "scale", "beyond"])
def test_a_claim_that_hides_its_reach_is_noticed(
    readers: dict[str, Reader], extension: Any, kind: str
) -> None:
    study = STUDIES[0]
    hide = after("</title>", f"<style>.lnlib-{kind} {{ display: none }}</style>")
    tab, _ = readers["light"].open(chapter(study), hide)
    claims = PROJECT.record(study).claims
    assert {u.split(":")[0] for u in unsaid(extension, tab, study)} == {
        claim.id for claim in claims
    }
    tab.close()


def test_a_page_is_written_again_when_the_reach_of_a_claim_changes(
    book: Path, extension: Any
) -> None:
    with (book.parent / ".doctrees" / "environment.pickle").open("rb") as file:
        dependencies = pickle.load(file).dependencies
    for study in STUDIES:
        for page in (f"notebooks/{study}", "book/verdicts"):
            assert str(extension.reach_file(study)) in dependencies[page]


# ------------------------------------------------------------------ the decision guide


def test_every_advice_stands_or_waits_for_its_tier(readers: dict[str, Reader]) -> None:
    tab, _ = readers["light"].open(GUIDE)
    tiers = {c.id: c.tier for s in STUDIES for c in PROJECT.record(s).claims}
    reasons = tab.query_selector_all(".lnlib-decision li")
    assert reasons
    fallen = [
        reason.inner_text()
        for reason in reasons
        if reason.get_attribute("data-stands") != "true"
        and tiers[reason.get_attribute("data-claim") or ""] == "quick"
    ]
    assert fallen == []
    for advice in tab.query_selector_all(".lnlib-decision"):
        told = advice.query_selector_all("li")
        stands = all(r.get_attribute("data-stands") == "true" for r in told)
        assert ("Avoid." in advice.inner_text()) == stands
    waiting = tab.locator('.lnlib-advice li[data-verdict="not judged"] .lnlib-says')
    assert set(waiting.all_inner_texts()) == {
        "No advice: this run does not reach its evidence."
    }
    tab.close()


# ------------------------------------------------------------------ launch


def launchers(tab: Page) -> list[str]:
    """Return where the launch buttons of a page lead."""
    buttons = tab.locator(".dropdown-launch-buttons a")
    return buttons.evaluate_all("all => all.map(e => e.href)")


def test_each_chapter_starts_elsewhere(readers: dict[str, Reader]) -> None:
    where = REPOSITORY.removeprefix("https://github.com/")
    for study in STUDIES:
        tab, _ = readers["light"].open(chapter(study))
        file = f"notebooks/{study}.ipynb"
        assert launchers(tab) == [
            f"https://mybinder.org/v2/gh/{where}/main?urlpath=lab/tree/{file}",
            f"https://colab.research.google.com/github/{where}/blob/main/{file}",
        ]
        tab.close()


# ------------------------------------------------------------------ status


def test_the_status_page_shows_the_last_runs(
    readers: dict[str, Reader], results: dict[str, Result]
) -> None:
    tab, _ = readers["light"].open("book/status.html")
    rows = tab.locator("tr[data-study]").evaluate_all(
        "all => all.map(e => [e.dataset.study, ...[...e.cells].map(c => c.innerText)])"
    )
    assert {row[0] for row in rows} == set(results)
    for study, _, tier, spent, _, day, _ in rows:
        assert tier == "quick"
        assert (
            day == read_notebook(results[study].path).metadata.papermill.end_time[:10]
        )
        assert spent == f"{results[study].run['cpu_seconds']:.0f}"
    (alike,) = tab.locator(".lnlib-aside li").all_inner_texts()  # one line for all
    for name, version in results[STUDIES[0]].run["versions"].items():
        assert f"{name} {version}" in alike
    commits = sorted({result.run["commit"] for result in results.values()})
    assert alike.endswith(f", commit {', '.join(commits)}")
    tab.close()


def test_a_card_tells_how_long_it_takes_to_read(readers: dict[str, Reader]) -> None:
    tab, _ = readers["light"].open(chapter(STUDIES[0]))
    (told,) = re.findall(r"(\d+) minutes", tab.inner_text(".lnlib-facts"))
    words = len(tab.inner_text("article").split())
    assert 1 <= int(told) <= words / 200
    tab.close()


def test_every_changed_verdict_is_on_its_page(readers: dict[str, Reader]) -> None:
    text = (ROOT / "book" / "verdict_changes.yml").read_text("utf-8")
    tab, _ = readers["light"].open("book/changes.html")
    shown = tab.locator(".lnlib-advice code").all_inner_texts()
    changed = [c for c, e in yaml.safe_load(text).items() if len(e) > 1]
    assert shown == changed
    tab.close()


# ------------------------------------------------------------------ print


@pytest.fixture(scope="session")
def print_book() -> Any:
    """The program that prints the book."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "book")
        return importlib.import_module("print_book")


@pytest.fixture(scope="session")
def printed(
    print_book: Any, book: Path, browser: Browser, tmp_path_factory: Any
) -> PdfReader:
    """The book as one PDF."""
    out = tmp_path_factory.mktemp("print") / "book.pdf"
    count = print_book.print_book(browser, book, ROOT / "_toc.yml", out)
    pdf = PdfReader(out)
    assert count == len(pdf.pages)
    return pdf


@pytest.fixture(scope="session")
def sheets(printed: PdfReader) -> list[str]:
    """The text of each printed page, without ligatures and spaces."""
    return [squeezed(page.extract_text()) for page in printed.pages]


def squeezed(text: str) -> str:
    """Return the text without ligatures and spaces."""
    return "".join(normalize("NFKC", text).split())


def test_every_chapter_is_printed_where_the_contents_say(
    printed: PdfReader, sheets: list[str], print_book: Any
) -> None:
    pages = list(print_book.order(ROOT / "_toc.yml"))
    assert [f"notebooks/{s}" for s in STUDIES] == sorted(
        name for name, _ in pages if name.startswith("notebooks/")
    )
    places = outline(printed)
    front = "".join(sheets[: places["Layer Normalization, Put to the Test"]])
    for study in STUDIES:
        title = PROJECT.record(study).title
        assert sheets[places[title]].startswith(squeezed(title))
        assert f"{squeezed(title)}{places[title] + 1}" in front


def outline(pdf: PdfReader) -> dict[str, int]:
    """Return the pages, from 0, where the entries of the outline lead."""
    found, todo = {}, [pdf.outline]
    while todo:
        for entry in todo.pop():
            if isinstance(entry, list):
                todo.append(entry)
            else:
                number = pdf.get_destination_page_number(entry)
                assert number is not None
                found[str(entry.title)] = number
    return found


def test_every_printed_page_has_its_number_and_mark(sheets: list[str]) -> None:
    mark = squeezed("Quick tier: reduced seeds and sizes, for testing only.")
    for number, text in enumerate(sheets, 1):
        assert re.search(rf"{re.escape(mark)}·{number}(?!\d)", text)


def test_links_in_print_stay_in_the_document(printed: PdfReader) -> None:
    named, inside = printed.named_destinations, 0
    for page in printed.pages:
        for reference in page.get("/Annots", []):
            note = reference.get_object()
            if "/Dest" in note:
                target = str(note["/Dest"])
                assert target in named or target.lstrip("/") in named
                inside += 1
            action = note.get("/A")
            url = str(action.get_object().get("/URI", "")) if action else ""
            assert not url.startswith("file:")
    assert inside > 1000


def test_the_evidence_stands_where_the_list_of_verdicts_says(
    printed: PdfReader, sheets: list[str], print_book: Any
) -> None:
    places = print_book.page_numbers(printed, [])
    first, end = (
        outline(printed)[title] for title in ("All verdicts", "Decision guide")
    )
    listed = "".join(sheets[first:end])
    for study in STUDIES:
        for claim in PROJECT.record(study).claims:
            name = f"claim-{claim.id.replace('.', '-')}"
            page = places[f"notebooks-{study}--{name}"]
            assert re.search(
                rf"{re.escape(claim.id)}.{{0,400}}?Evidence:page{page}(?!\d)", listed
            )
            assert squeezed(claim.id) in sheets[page - 1]
    assert "outcome" not in listed


def test_code_has_one_bar_to_open_it(extension: Any) -> None:
    """A hidden cell without outputs opens with the hidden one behind it."""

    def cell(text: str, *outputs: nodes.Node, hidden: bool = True) -> nodes.container:
        source = nodes.container("", nodes.literal_block(text, text))
        mode = {"hide_mode": "input"} if hidden else {}
        return nodes.container("", source, *outputs, **mode)

    tree = new_document("a page")
    tree += [cell("1"), cell("2"), cell("3", nodes.container()), cell("4")]
    tree += [nodes.paragraph("", "between"), cell("5"), cell("6", hidden=False)]
    extension.join_hidden(None, tree)
    blocks = [[b.astext() for b in top.findall(nodes.literal_block)] for top in tree]
    assert blocks == [["1", "2", "3"], ["4"], [], ["5"], ["6"]]
    assert [len(top) for top in tree] == [2, 1, 1, 1, 1]


def test_no_bar_follows_a_bar(book: Path) -> None:
    hidden = r'<div class="cell tag_hide-input'
    for study in STUDIES:
        page = (book / chapter(study)).read_text("utf-8")
        assert re.search(rf"{hidden}[^>]*>\s*<details", page)
        assert not re.search(rf"</details>\s*</div>\s*{hidden}", page), study


def test_what_is_closed_on_a_page_is_open_in_print(
    sheets: list[str], readers: dict[str, Reader]
) -> None:
    text = "".join(sheets)
    closed = "details:not([open]) td:first-child, details:not([open]) > p"
    for page in (BOARD, chapter(STUDIES[0])):
        tab, _ = readers["light"].open(page)
        hidden = tab.locator(closed).evaluate_all(
            "all => all.filter(e => !e.closest('.tag_hide-input > details'))"
            ".flatMap(e => e.querySelector(':scope > .lnlib-place')"
            " ? [...e.children] : [e]).map(e => e.textContent)"
        )
        tab.close()
        assert hidden
        # In print, a claim's seeds may stand between its text and its place.
        # A text that goes over the end of a page has its number in between.
        lost = [words for words in hidden if squeezed(words) not in text]
        assert len(lost) < 0.03 * len(hidden) + 1, lost[:5]


def test_what_opens_for_print_does_not_fade_in(readers: dict[str, Reader]) -> None:
    tab, _ = readers["light"].open(chapter(STUDIES[0]))
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    moving = """[...document.querySelectorAll("article details[open] > *")]
        .filter(e => getComputedStyle(e).opacity < 1 || e.getAnimations().length)
        .map(e => e.outerHTML.slice(0, 80))"""
    assert tab.locator("article details[open]").count() > 5
    assert tab.evaluate(moving) == []
    tab.close()


def test_the_figures_are_in_print(sheets: list[str], book: Path) -> None:
    html = "".join((book / page).read_text("utf-8") for page in pages(book))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html, re.DOTALL)
    assert len(captions) > 50
    text = "".join(sheets)
    lost = [c for c in captions if squeezed(unescape(c))[:40] not in text]
    assert lost == []


CUT = """() => [...document.querySelectorAll("article *")].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !e.closest("mjx-assistive-mml");
}).map(e => e.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("page", [START, BOARD, *map(chapter, STUDIES)])
def test_nothing_is_cut_off_in_print(readers: dict[str, Reader], page: str) -> None:
    tab, _ = readers["light"].open(page)
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 665, "height": 900})  # between the margins of A4
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    cut = tab.evaluate(CUT)
    tab.close()
    assert cut == []


def test_what_is_cut_off_in_print_is_noticed(readers: dict[str, Reader]) -> None:
    tab, _ = readers["light"].open(START)
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 665, "height": 900})
    tab.evaluate("document.querySelector('article h1').style.width = '700px'")
    assert len(tab.evaluate(CUT)) >= 1
    tab.close()


def test_a_page_without_an_article_is_not_printed(
    print_book: Any, tmp_path: Path
) -> None:
    (tmp_path / "empty.html").write_text("<html><body></body></html>", "utf-8")
    with pytest.raises(ValueError, match="Build the book anew"):
        print_book.article(tmp_path, "empty", {"empty"})


def test_a_page_that_the_contents_leave_out_is_named(
    print_book: Any, browser: Browser
) -> None:
    tab = browser.new_page()
    tab.set_content("<body data-mark=''><a href='#a'>A</a><h1 id='a'>A</h1></body>")
    pdf = PdfReader(io.BytesIO(print_book.pdf_of(tab)))
    tab.close()
    assert print_book.page_numbers(pdf, ["a"]) == {"a": 1}
    with pytest.raises(ValueError, match="b is none"):
        print_book.page_numbers(pdf, ["a", "b"])


# ------------------------------------------------------------------ links and search


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the ids of a page of the book, which stays as it is."""
    return frozenset(re.findall(r'\bid="([^"]*)"', page.read_text("utf-8")))


def broken_links(book: Path, page: str, html: str) -> list[str]:
    """Return the links of a page that lead to no page or no place of this book."""
    found = []
    for link in re.findall(r'<a\b[^>]*?\bhref="([^"]*)"', html):
        parts = urlsplit(urljoin(f"http://book/{page}", link.replace("&amp;", "&")))
        if parts.netloc != "book":
            continue
        target = book / unquote(parts.path).lstrip("/")
        if not target.is_file() or (
            parts.fragment and unquote(parts.fragment) not in anchors(target)
        ):
            found.append(link)
    return found


def test_the_first_address_leads_to_the_start_page(readers: dict[str, Reader]) -> None:
    tab, _ = readers["light"].open("index.html")
    tab.wait_for_url(f"**/{START}")
    tab.close()


def test_links_lead_somewhere(book: Path) -> None:
    wrong = {
        page: links
        for page in pages(book)
        if (links := broken_links(book, page, (book / page).read_text("utf-8")))
    }
    assert not wrong, json.dumps(wrong, indent=1)


@pytest.mark.parametrize("link", ["nowhere.html", "verdicts.html#nothing", "#nothing"])
def test_a_broken_link_is_noticed(book: Path, link: str) -> None:
    html = (book / START).read_text("utf-8") + f'<a class="x" href="{link}">x</a>'
    assert broken_links(book, START, html) == [link]


def found_by_search(tab: Page, word: str, patience: float = 30_000) -> int:
    """Type a word into the search box, as a reader does; return the hits."""
    tab.keyboard.press("Control+k")
    tab.keyboard.type(word)
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/search.html?*")
    tab.wait_for_function(
        "document.querySelector('.search-summary, #search-results p')"
        "?.innerText.match(/found|did not match/i)",
        timeout=patience,
    )
    return len(tab.query_selector_all("ul.search li"))


@pytest.mark.parametrize(("word", "some"), [("dropout", True), ("zyzzyva", False)])
def test_search(readers: dict[str, Reader], word: str, some: bool) -> None:
    tab, noise = readers["light"].open(START)
    assert bool(found_by_search(tab, word)) == some
    assert noise["outside"] == []
    tab.close()


@pytest.fixture
def offline(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that has no network and reads files alone."""
    context = browser.new_context(offline=True)
    yield context
    context.close()


@pytest.mark.parametrize(("word", "some"), [("dropout", True), ("zyzzyva", False)])
def test_search_in_files_without_a_network(
    offline: BrowserContext, book: Path, word: str, some: bool
) -> None:
    tab, asked = offline.new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((book / START).as_uri())
    assert bool(found_by_search(tab, word)) == some
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    if some:
        tab.locator("ul.search li a").first.click()
        tab.wait_for_selector("article h1")
        assert "dropout" in tab.inner_text("article").lower()


def test_search_that_asks_the_network_is_noticed(
    offline: BrowserContext, book: Path
) -> None:
    tab = offline.new_page()
    tab.route(
        "**/searchindex.js",
        lambda route: route.fulfill(body="fetch('http://192.0.2.1/')"),
    )
    tab.goto((book / START).as_uri())
    with pytest.raises(TimeoutError):
        found_by_search(tab, "dropout", patience=2000)


def test_pages_open_without_a_network(offline: BrowserContext, book: Path) -> None:
    wrong: dict[str, list[str]] = {}
    for page in pages(book):
        tab = offline.new_page()
        noise = wrong.setdefault(page, [])
        tab.on("requestfailed", lambda request, noise=noise: noise.append(request.url))
        tab.goto((book / page).as_uri())
        tab.wait_for_function(
            "!window.MathJax || !MathJax.startup || MathJax.startup.promise"
            ".then(() => true)"
        )
        bare = tab.locator(".math:not(:has(mjx-container))").count()
        noise += ["a formula is not set"] * bare
        tab.close()
    assert {page: said for page, said in wrong.items() if said} == {}


@pytest.mark.parametrize("study", STUDIES)
def test_hidden_parts_open_by_keyboard(readers: dict[str, Reader], study: str) -> None:
    tab, _ = readers["light"].open(chapter(study))
    hidden = tab.query_selector_all("article details:not(details details)")
    solutions = tab.query_selector_all("article .toggle-button")
    assert hidden
    for part in hidden:
        part.query_selector("summary").focus()
        tab.keyboard.press("Enter")
        assert part.evaluate("e => e.open")
    for button in solutions:
        before = button.get_attribute("aria-expanded")
        button.focus()
        tab.keyboard.press("Enter")
        assert button.get_attribute("aria-expanded") != before
    tab.close()


# ------------------------------------------------------------------ the extension


def test_quick_never_executes(extension: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    record = PROJECT.record(STUDIES[0])
    env = SimpleNamespace()
    monkeypatch.setattr(extension, "studies", lambda _: {STUDIES[0]: (record, "doc")})
    empty = extension.StudyResult(record, "doc")
    monkeypatch.setattr(extension, "read_study", lambda *_: empty)
    app = SimpleNamespace(config=SimpleNamespace(lnlib_book_tier="quick"))
    with pytest.raises(extension.ExtensionError, match=STUDIES[0]):
        extension.refuse_missing(app, env)
    app.config.lnlib_book_tier = "book"
    assert extension.refuse_missing(app, env) == []


def test_an_unknown_tier_is_refused(
    extension: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNLIB_BOOK_TIER", "quik")
    with pytest.raises(ValueError, match="quick"):
        extension.configure(None, None)


def test_what_is_not_run_is_not_guessed(extension: Any) -> None:
    record = PROJECT.record(STUDIES[0])
    empty = extension.StudyResult(record, "doc")
    for claim in record.claims:
        assert extension.badges(empty, claim) == extension.claims.badge("not run")
        assert empty.finding(claim) == ""
        assert claim.expected not in extension.told(empty, claim)
    assert "measured" not in extension.seconds(empty)


def test_a_finding_that_was_not_measured_is_not_called_unexpected(
    extension: Any,
) -> None:
    record = PROJECT.record(STUDIES[0])
    claim = record.claims[0]
    bundle = {"claim": claim.id, "verdict": claim.expected, "evidence": []}
    result = extension.StudyResult(record, "doc", {claim.id: bundle}, {"tier": "book"})
    assert "measurements that this run skipped" in extension.told(result, claim)


def test_an_unexpected_verdict_stands_beside_the_expected_one(extension: Any) -> None:
    record = PROJECT.record(STUDIES[0])
    claim = record.claims[0]
    other = "holds" if claim.expected != "holds" else "fails"
    bundle = {"claim": claim.id, "verdict": other, "evidence": []}
    result = extension.StudyResult(record, "doc", {claim.id: bundle}, {"tier": "book"})
    shown = extension.badges(result, claim)
    assert shown.index(f'"{other}"') < shown.index(f'"{claim.expected}"')
    assert result.finding(claim) == ""


def found_by(extension: Any, results: dict[str, Result]) -> dict[str, Any]:
    """Return the results as the book's extension sees them."""
    return {
        study: extension.StudyResult(
            PROJECT.record(study),
            f"notebooks/{study}",
            {b["claim"]: b for b in result.bundles},
            result.run,
        )
        for study, result in results.items()
    }


def test_an_advice_falls_when_an_outcome_is_swapped(
    extension: Any, results: dict[str, Result]
) -> None:
    found, swaps = found_by(extension, results), 0
    other = {"met": "missed", "missed": "met"}
    for decision in extension.load_decisions():
        for i, support in enumerate(extension.supports(decision, found)):
            if not support.stands:
                continue  # judged at tier book
            reason = support.reason
            swapped = reason.model_copy(update={"outcome": other[reason.outcome]})
            because = (*decision.because[:i], swapped, *decision.because[i + 1 :])
            fallen = decision.model_copy(update={"because": because})
            assert not extension.supports(fallen, found)[i].stands
            swaps += 1
    assert swaps > 10


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"claim": "rnn.none"}, "no study has the claim rnn.none"),
        ({"prediction": "nothing"}, "no stated prediction nothing; it has"),
    ],
)
def test_an_advice_on_nothing_is_refused(
    extension: Any, results: dict[str, Result], change: dict[str, str], complaint: str
) -> None:
    found, decision = found_by(extension, results), extension.load_decisions()[0]
    reason = decision.because[0].model_copy(update=change)
    with pytest.raises(extension.ExtensionError, match=complaint):
        extension.supports(decision.model_copy(update={"because": (reason,)}), found)


@pytest.mark.parametrize(
    "text", ["- build: x", "- {build: x, do: y, avoid: z, because: [{claim: a}]}", "3"]
)
def test_a_guide_with_gaps_is_refused(
    extension: Any, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "decisions.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(extension.ExtensionError, match="does not say what it must"):
        extension.load_decisions(path)


def test_a_build_warns_of_an_advice_that_fell(
    extension: Any, results: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, said = found_by(extension, results), []
    monkeypatch.setattr(extension, "results", lambda _: found)
    monkeypatch.setattr(
        extension.logger, "warning", lambda text, *a: said.append(text % a)
    )
    extension.check_decisions(None, None)
    assert said == []
    first = extension.load_decisions()[0]
    other = {"met": "missed", "missed": "met"}[first.because[0].outcome]
    reason = first.because[0].model_copy(update={"outcome": other})
    fallen = first.model_copy(update={"because": (reason,)})
    monkeypatch.setattr(extension, "load_decisions", lambda: [fallen])
    extension.check_decisions(None, None)
    assert len(said) == 1
    assert reason.claim in said[0]


def test_budgets_on_the_pages(extension: Any) -> None:
    text = (ROOT / "book" / "rerun.md").read_text("utf-8")
    for tier in TIERS:
        assert f"| `{tier}` | {runner.BUDGETS[tier]} |" in text


@pytest.mark.parametrize("page", ["README.md", "book/rerun.md"])
def test_the_seeds_on_the_pages(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    assert f"| `seed` | a whole number from 0 to {MAX_SEED} |" in text


# ------------------------------------------------------------------ the example


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Run the study of add_a_study.md, and return its verdicts."""
    *_, registry = blocks("add_a_study.md", "yaml")
    (tmp_path / "mean_removal.yml").write_text(registry, encoding="utf-8")
    monkeypatch.setenv("LNLIB_REGISTRY", str(tmp_path))
    monkeypatch.setattr("lnlib.claims.display", lambda *_, **__: None)

    def run(control: str) -> Any:
        first, *cells = blocks("add_a_study.md", "python")
        names: dict[str, Any] = {}
        exec(first, names)  # the page's own cells, in order
        names["control"] = control
        for cell in cells:
            exec(cell, names)
        return names["study"]

    return run


@pytest.mark.parametrize(
    ("control", "verdicts"),
    [
        ("none", {"mean.removed": "holds", "mean.input-differs": "holds"}),
        ("no-centring", {"mean.removed": "fails", "mean.input-differs": "holds"}),
        ("no-offset", {"mean.removed": "holds", "mean.input-differs": "fails"}),
    ],
)
def test_the_example_of_a_study_runs(
    example: Callable[[str], Any], control: str, verdicts: dict[str, str]
) -> None:
    assert example(control)._verdicts == verdicts


# ------------------------------------------------------------------ plain words


@pytest.mark.parametrize("study", STUDIES)
def test_registry_texts_are_plain(study: str) -> None:
    record = PROJECT.record(study)
    texts = [record.title, record.question, *record.data, *record.prerequisites]
    for claim in record.claims:
        texts += [claim.says, claim.finding, claim.practice]
    assert [text for text in texts if re.search(r"[`$*<\\]", text)] == []
