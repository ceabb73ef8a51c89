"""Print the built book as one PDF, with contents and page numbers: `make pdf`.

The articles of all pages become one document, so that links, fonts and numbers of
pages are the browser's work.  It is printed twice: the first print tells on which page
each chapter begins, the second has these numbers in its contents.

    python book/print_book.py _build/html _build/book.pdf
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page
from pypdf import PdfReader

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
SCREEN = ".headerlink, script:not([type^='math/']), .prev-next-footer, .lnlib-tools"
NAMING = ("for", "aria-labelledby", "aria-describedby", "aria-controls", "headers")
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
    drawings = {id(tag) for tag in found.select("svg, svg *")}
    for tag in found.find_all(True):
        if id(tag) in drawings:  # ids in a drawing are digests of what they name
            continue
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
    return found


def relink(tag: Tag, html: Path, place: Path, names: set[str]) -> None:
    """Let a link lead into the one document, or out to the web, or nowhere."""
    address, anchor = urldefrag(urljoin(place.as_uri(), str(tag["href"])))
    if urlsplit(address).scheme != "file":
        return
    name = address.removeprefix(html.resolve().as_uri() + "/").removesuffix(".html")
    if name not in names:  # a file beside the pages
        del tag["href"]
    else:
        tag["href"] = f"#{key(name)}--{anchor}" if anchor else f"#{key(name)}"


def document(html: Path, toc: Path) -> tuple[str, dict[str, str]]:
    """Return the whole book as one page, and the titles of its articles by name."""
    pages = list(order(toc))
    names = {name for name, _ in pages}
    start = (html / f"{pages[0][0]}.html").resolve()
    page = BeautifulSoup(start.read_text("utf-8"), "html.parser")
    mark = page.select_one(".bd-header-announcement")
    articles, titles, lines, now = [], {}, [], ""
    for name, part in pages:
        found = article(html, name, names)
        titles[name] = found.select("h1")[0].get_text().strip()
        articles.append(str(found))
        if part != now:
            now = part
            lines.append(f"<h2>{escape(part)}</h2>")
        lines.append(
            f'<p><a href="#{key(name)}">{escape(titles[name])}</a>'
            f'<span data-page="{escape(name)}"></span></p>'
        )
    for tag in page.select("[href], [src]"):
        for attribute in ("href", "src"):
            if tag.get(attribute):
                tag[attribute] = urljoin(start.as_uri(), str(tag[attribute]))
    head, body = page.select_one("head"), page.select_one("body")
    assert head is not None
    assert body is not None
    scripts = "".join(str(tag) for tag in body.select("script"))
    title = escape(titles[pages[0][0]])
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
    foot = FOOT.format(mark=f"{escape(mark)} · " if mark else "")
    return tab.pdf(
        format="A4",
        print_background=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=foot,
        margin={"top": "16mm", "bottom": "18mm", "left": "17mm", "right": "17mm"},
        outline=True,
        tagged=True,
    )


def first_pages(pdf: bytes, titles: Mapping[str, str]) -> dict[str, int]:
    """Return the number, from 1, of the page on which each article begins.

    Raises:
        ValueError: an article is not in the outline of the document, in its turn.
    """
    reader = PdfReader(io.BytesIO(pdf))
    found: dict[str, int] = {}
    waiting = list(titles.items())
    for entry in outline(reader.outline):
        if waiting and plain(str(entry.title)) == plain(waiting[0][1]):
            page = reader.get_destination_page_number(entry)
            if page is not None:
                found[waiting.pop(0)[0]] = page + 1
    if waiting:
        raise ValueError(
            f"each chapter must stand in the outline of the PDF; {waiting[0][1]!r} "
            "does not. Is its title the first heading of its page?"
        )
    return found


def outline(entries: Any) -> Iterator[Any]:
    """Yield the entries of an outline in the order of the document."""
    for entry in entries:
        if isinstance(entry, list):
            yield from outline(entry)
        else:
            yield entry


def plain(text: str) -> str:
    """Return the text without spaces."""
    return "".join(text.split())


def print_book(browser: Browser, html: Path, toc: Path, out: Path) -> int:
    """Print the book whose pages are in `html` to `out`; return how many pages it has.

    Raises:
        ValueError: a page has no article, or a chapter is not in the outline.
        RuntimeError: the contents changed the places of the chapters.
    """
    text, titles = document(html, toc)
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
        fill = (
            "pages => document.querySelectorAll('[data-page]')"
            ".forEach(e => { e.textContent = pages[e.dataset.page] ?? 0; })"
        )
        tab.evaluate(fill, {})
        places = first_pages(pdf_of(tab), titles)
        tab.evaluate(fill, places)
        pdf = pdf_of(tab)
    context.close()
    if first_pages(pdf, titles) != places:
        raise RuntimeError("the contents must not move the chapters, and did")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(pdf)
    return len(PdfReader(io.BytesIO(pdf)).pages)


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
