"""Print the built book as one PDF, with contents and page numbers: `make pdf`.

The articles of all pages become one document, so that links, fonts and numbers of
pages are the browser's work.  It is printed twice: the first print tells on which page
each chapter begins, the second has these numbers in its contents.  The outline is added
at the end: the browser's own needs a tagged document, which takes it many minutes.

What the screen folds away is open in print, once: what would falsify a claim stands
with all verdicts and not in the chapter's card, its evidence in the chapter and not
with all verdicts.  The code of the experiments is there, in small type, because the
text between it speaks of it; the code behind figures is left out.

    python book/print_book.py _build/html _build/book.pdf
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page
from pypdf import PdfReader, PdfWriter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import MISSING, find_browser, open_browser  # noqa: E402

NUMBER = '<span class="pageNumber"></span>'
FOOT = (
    '<div style="width: 100%; text-align: center; font: 8pt sans-serif; color: #444">'
    "{mark}" + NUMBER + "</div>"
)
SET = "!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)"
# What belongs to a page on a screen, and what names or runs something.
SCREEN = (
    ".headerlink, script:not([type^='math/']), .prev-next-footer, .lnlib-tools, "
    "p:has(> a[href$='.json']:only-child)"
)
NAMING = ("for", "aria-labelledby", "aria-describedby", "aria-controls", "headers")
FILL = """numbers => document.querySelectorAll("[data-page]").forEach(
    place => { place.textContent = numbers[place.dataset.page]; })"""
WAIT = 600_000  # milliseconds for one step in the browser


def order(toc: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of every page of the contents, and the part it belongs to."""
    contents = yaml.safe_load(toc.read_text("utf-8"))
    yield contents["root"], ""
    for part in contents["parts"]:
        todo = list(reversed(part["chapters"]))
        while todo:
            entry = todo.pop()
            yield entry["file"], part["caption"]
            todo.extend(reversed(entry.get("sections", [])))


def key(name: str) -> str:
    """Return the prefix of a page's ids in the one document."""
    return re.sub(r"\W+", "-", name)


def article(html: Path, name: str, names: set[str]) -> Tag:
    """Return the article of a page, its ids and links made those of one document.

    Raises:
        ValueError: the page has no article.
    """
    place = (html / f"{name}.html").resolve()
    found = BeautifulSoup(place.read_text("utf-8"), "html.parser").select_one("article")
    if found is None:
        raise ValueError(
            f"{place} must have an <article>, and has none. Build the book anew."
        )
    for tag in found.select(SCREEN):
        tag.decompose()
    for tag in outside_drawings(found):
        if tag.get("id"):
            tag["id"] = f"{key(name)}--{tag['id']}"
        for attribute in NAMING:
            if tag.get(attribute):
                value = tag[attribute]
                ids = value.split() if isinstance(value, str) else value
                tag[attribute] = " ".join(f"{key(name)}--{i}" for i in ids)
        if tag.get("src"):
            tag["src"] = urljoin(place.as_uri(), str(tag["src"]))
        if tag.name == "a" and tag.get("href"):
            relink(tag, html, place, names)
    found["id"] = key(name)
    say_once(found)
    return found


def say_once(found: Tag) -> None:
    """Leave out what stands open elsewhere in print, and say where the evidence is."""
    for told in found.select(".lnlib-card details > :not(summary)"):
        told.decompose()
    for table in found.select(".lnlib-board details:has(.lnlib-evidence)"):
        link = table.parent.select_one(".lnlib-place a[href]")
        if link is None:  # the chapter is not printed
            continue
        note = f'<p class="lnlib-aside">Evidence: {page_of(str(link["href"])[1:])}</p>'
        table.replace_with(BeautifulSoup(note, "html.parser"))


def page_of(place: str) -> str:
    """Return a link to a place, which is to show the place's page."""
    return f'<a href="#{place}">page <span data-page="{place}">0</span></a>'


def outside_drawings(tag: Tag) -> Iterator[Tag]:
    """Yield the tags below `tag`, not those in a drawing, whose ids are digests."""
    for child in tag.children:
        if isinstance(child, Tag) and child.name != "svg":
            yield child
            yield from outside_drawings(child)


def relink(tag: Tag, html: Path, place: Path, names: set[str]) -> None:
    """Let a link lead into the one document, or out to the web, or nowhere."""
    address, anchor = urldefrag(urljoin(place.as_uri(), str(tag["href"])))
    if urlsplit(address).scheme != "file":
        if not tag.get_text().startswith(("doi:", "arXiv:", "http")):
            told = escape(address.removeprefix("https://"))
            note = f' <span class="lnlib-address">({told})</span>'
            tag.insert_after(BeautifulSoup(note, "html.parser"))
        return
    name = address.removeprefix(html.resolve().as_uri() + "/").removesuffix(".html")
    if name not in names:  # a file beside the pages
        del tag["href"]
    else:
        tag["href"] = f"#{key(name)}--{anchor}" if anchor else f"#{key(name)}"


def document(html: Path, pages: Sequence[tuple[str, str]]) -> tuple[str, list[str]]:
    """Return the pages, each with its part, as one page, and their titles."""
    names = {name for name, _ in pages}
    start = (html / f"{pages[0][0]}.html").resolve()
    page = BeautifulSoup(start.read_text("utf-8"), "html.parser")
    mark = page.select_one(".bd-header-announcement")
    articles, titles, lines, now = [], [], [], ""
    for name, part in pages:
        found = article(html, name, names)
        titles.append(found.select("h1")[0].get_text().strip())
        articles.append(str(found))
        if part != now:
            now = part
            lines.append(f"<h2>{escape(part)}</h2>")
        lines.append(
            f'<p><a href="#{key(name)}">{escape(titles[-1])}</a>'
            f'<span data-page="{key(name)}">0</span></p>'
        )
    for tag in page.select("[href], [src]"):
        for attribute in ("href", "src"):
            if tag.get(attribute):
                tag[attribute] = urljoin(start.as_uri(), str(tag[attribute]))
    head, body = page.select_one("head"), page.select_one("body")
    assert head is not None
    assert body is not None
    scripts = "".join(str(tag) for tag in body.select("script"))
    title = escape(titles[0])
    told = escape(mark.get_text().strip()) if mark else ""
    return (
        '<!doctype html><html lang="en" data-theme="light" data-mode="light">'
        f'{head}<body class="lnlib-print" data-mark="{told}">'
        f'<nav class="lnlib-contents"><p class="lnlib-title">{title}</p>'
        f'<p>{told}</p>{"".join(lines)}</nav><div class="bd-main">'
        '<div class="bd-content"><div class="bd-article-container">'
        + "".join(f'<div class="bd-article">{text}</div>' for text in articles)
        + f"</div></div></div>{scripts}</body></html>"
    ), titles


def pdf_of(tab: Page) -> bytes:
    """Print the tab."""
    mark = tab.evaluate("document.body.dataset.mark")
    return tab.pdf(
        format="A4",
        print_background=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOT.format(mark=f"{escape(mark)} · " if mark else ""),
        margin={"top": "16mm", "bottom": "18mm", "left": "15mm", "right": "15mm"},
    )


def page_numbers(pdf: PdfReader, names: Sequence[str]) -> dict[str, int]:
    """Return the number of the page, from 1, of every place to which a link leads.

    Raises:
        ValueError: one of the articles `names` is no such place.
    """
    places = {
        name.removeprefix("/"): 1 + (pdf.get_destination_page_number(place) or 0)
        for name, place in pdf.named_destinations.items()
    }
    for name in names:
        if key(name) not in places:
            raise ValueError(
                f"each page must be a place in the PDF, and {name} is none. "
                "Does the list of contents link to it?"
            )
    return places


def print_book(browser: Browser, html: Path, toc: Path, out: Path) -> int:
    """Print the book whose pages are in `html` to `out`; return how many pages it has.

    Raises:
        ValueError: a page has no article, or is no place in the PDF.
        RuntimeError: the numbers of pages moved what they name.
    """
    pages = list(order(toc))
    names = [name for name, _ in pages]
    text, titles = document(html, pages)
    context = browser.new_context(color_scheme="light", offline=True)
    context.add_init_script("localStorage.theme = localStorage.mode = 'light'")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "book.html"
        source.write_text(text, "utf-8")
        tab = context.new_page()
        tab.set_default_timeout(WAIT)
        tab.goto(source.as_uri())
        tab.wait_for_function(SET)
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        places = page_numbers(PdfReader(io.BytesIO(pdf_of(tab))), names)
        tab.evaluate(FILL, places)
        pdf = PdfReader(io.BytesIO(pdf_of(tab)))
    context.close()
    if page_numbers(pdf, names) != places:
        raise RuntimeError("the numbers of pages must not move what they name, and did")

    writer = PdfWriter(clone_from=pdf)
    writer.add_metadata({"/Title": titles[0]})
    parents: dict[str, Any] = {"": None}
    for (name, part), title in zip(pages, titles, strict=True):
        number = places[key(name)] - 1
        if part not in parents:
            parents[part] = writer.add_outline_item(part, number)
        writer.add_outline_item(title, number, parent=parents[part])
    out.parent.mkdir(parents=True, exist_ok=True)
    writer.write(out)
    return len(writer.pages)


def main() -> int:
    """Print the book; without a browser, say what is missing."""
    html, out = map(Path, sys.argv[1:])
    program = find_browser()
    if program is None:
        print(MISSING, file=sys.stderr)
        return 1
    with open_browser(program) as browser:
        pages = print_book(browser, html, ROOT / "_toc.yml", out)
    print(f"The book in print: {out}, {pages} pages, {out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
