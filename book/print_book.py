"""Print the built book as one PDF with contents and page numbers: `make pdf`.

Chromium prints each page; pypdf joins them, and turns links from page to page into
links inside the document.

    python book/print_book.py _build/html _build/book.pdf
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from playwright.sync_api import Browser, BrowserContext
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NullObject
from pypdf.generic import FloatObject as Number

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import MISSING, find_browser, open_browser  # noqa: E402

PAPER: dict[str, Any] = {
    "format": "A4",
    "scale": 0.8,
    "print_background": True,
    "margin": {"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
}
SET = "!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)"
PLAIN = """<!doctype html><html lang="en"><meta charset="utf-8"><style>
body { font: 13pt/1.5 sans-serif; } h1 { margin: 30mm 0 4mm; } p { color: #444; }
a { color: inherit; text-decoration: none; display: flex; }
a::before { content: ""; order: 1; flex: 1; margin: 0 .5em; border-bottom: 1px dotted; }
a b { order: 2; font-weight: normal; } h2 { font-size: 13pt; margin: 1.2em 0 .2em; }
.sheet { position: relative; height: 273mm; break-after: page; }
.sheet span { position: absolute; bottom: 0; width: 100%; text-align: center;
  font-size: 10pt; color: #444; }
</style>"""


@dataclass
class Chapter:
    """A page of the book as it was printed."""

    path: Path
    part: str
    title: str
    pdf: PdfReader
    first: int = 0  # the number of its first page, from 0


def order(toc: Path) -> list[tuple[str, str]]:
    """Return every page of the contents, and the part that it belongs to."""
    contents = yaml.safe_load(toc.read_text("utf-8"))
    found = [(contents["root"], "")]

    def add(entries: Sequence[dict[str, Any]], part: str) -> None:
        for entry in entries:
            found.append((entry["file"], part))
            add(entry.get("sections", []), part)

    for part in contents["parts"]:
        add(part["chapters"], part["caption"])
    return found


def print_page(context: BrowserContext, path: Path) -> tuple[str, str, PdfReader]:
    """Print one page; return its title, its announcement and the PDF."""
    tab = context.new_page()
    tab.goto(path.as_uri())
    tab.wait_for_function(SET)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    title = tab.evaluate(
        "[...document.querySelector('article h1').childNodes]"
        ".filter(n => !n.classList?.contains('headerlink'))"
        ".map(n => n.textContent).join('').trim()"
    )
    mark = tab.locator(".bd-header-announcement")
    told = mark.first.inner_text().strip() if mark.count() else ""
    pdf = PdfReader(io.BytesIO(tab.pdf(**PAPER)))
    tab.close()
    return title, told, pdf


def print_html(context: BrowserContext, html: str, bottom: str = "18mm") -> PdfReader:
    """Print a text of our own."""
    tab = context.new_page()
    tab.set_content(PLAIN + html)
    margin = PAPER["margin"] | {"bottom": bottom}
    pdf = PdfReader(io.BytesIO(tab.pdf(**(PAPER | {"scale": 1, "margin": margin}))))
    tab.close()
    return pdf


def contents_html(chapters: Sequence[Chapter], mark: str, before: int) -> str:
    """Return the title and the contents; `before` pages stand before the chapters."""
    name, rest = chapters[0].title, "The code behind a figure is in the notebooks."
    lines = [f"<h1>{escape(name)}</h1><p>{escape(mark)}</p><p>{rest}</p>"]
    part = ""
    for chapter in chapters:
        if chapter.part != part:
            part = chapter.part
            lines.append(f"<h2>{escape(part)}</h2>")
        lines.append(
            f'<a href="{chapter.path.as_uri()}">{escape(chapter.title)} '
            f"<b>{before + chapter.first + 1}</b></a>"
        )
    return "\n".join(lines)


def destination(writer: PdfWriter, page: int, top: float | None) -> ArrayObject:
    """Return a place in the document: a page, and how far up on it."""
    height = NullObject() if top is None else Number(top)
    place = [NameObject("/XYZ"), NullObject(), height, NullObject()]
    return ArrayObject([writer.pages[page].indirect_reference, *place])


def relink(writer: PdfWriter, parts: Sequence[Chapter]) -> None:
    """Turn links to files of the book, and to names, into links to places in it."""
    named = {c.path: c.pdf.named_destinations for c in parts}
    by_path = {c.path: c for c in parts}

    def place(chapter: Chapter, name: str) -> ArrayObject:
        found = named[chapter.path].get(name) or named[chapter.path].get(f"/{name}")
        page = None if found is None else chapter.pdf.get_destination_page_number(found)
        if found is None or page is None:
            return destination(writer, chapter.first, None)
        top = None if found.top is None else float(found.top)
        return destination(writer, chapter.first + page, top)

    for chapter in parts:
        last = chapter.first + len(chapter.pdf.pages)
        for page in writer.pages[chapter.first : last]:
            for reference in page.get("/Annots", []):
                note = reference.get_object()
                action = note.get("/A", DictionaryObject()).get_object()
                target: ArrayObject | None = None
                if "/Dest" in note and isinstance(note["/Dest"], str):
                    target = place(chapter, str(note["/Dest"]))
                elif str(action.get("/URI", "")).startswith("file:"):
                    url = urlsplit(str(action["/URI"]))
                    path = Path(unquote(url.path))
                    if path in by_path:
                        target = place(by_path[path], unquote(url.fragment))
                    else:  # a file beside the pages: no link in print
                        del note["/A"]
                if target is not None:
                    note.pop("/A", None)
                    note[NameObject("/Dest")] = target


def print_book(browser: Browser, html: Path, toc: Path, out: Path) -> PdfWriter:
    """Print the book whose pages are in `html` to the file `out`."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme="light", offline=True
    )
    context.add_init_script("localStorage.theme = localStorage.mode = 'light'")
    chapters, mark = [], ""
    for name, part in order(toc):
        path = (html / f"{name}.html").resolve()
        title, told, pdf = print_page(context, path)
        first = chapters[-1].first + len(chapters[-1].pdf.pages) if chapters else 0
        chapters.append(Chapter(path, part, title, pdf, first))
        mark = mark or told
    before = len(print_html(context, contents_html(chapters, mark, 0)).pages)
    front = Chapter(
        html, "", "Contents", print_html(context, contents_html(chapters, mark, before))
    )
    if len(front.pdf.pages) != before:
        raise RuntimeError("the contents must keep their length when numbers come in")
    for chapter in chapters:
        chapter.first += before

    writer = PdfWriter()
    parents: dict[str, Any] = {}
    for chapter in (front, *chapters):
        writer.append(chapter.pdf, import_outline=False)
    relink(writer, (front, *chapters))
    for chapter in (front, *chapters):
        if chapter.part and chapter.part not in parents:
            parents[chapter.part] = writer.add_outline_item(chapter.part, chapter.first)
        writer.add_outline_item(
            chapter.title, chapter.first, parent=parents.get(chapter.part)
        )
    foot = " · ".join(["{}", *[mark] * bool(mark)])
    sheets = (
        f'<div class="sheet"><span>{escape(foot.format(n))}</span></div>'
        for n in range(1, len(writer.pages) + 1)
    )
    numbers = print_html(context, "".join(sheets), bottom="6mm")
    for page, number in zip(writer.pages, numbers.pages, strict=True):
        page.merge_page(number)
        page.compress_content_streams()
    writer.add_metadata({"/Title": chapters[0].title})
    writer.compress_identical_objects()
    out.parent.mkdir(parents=True, exist_ok=True)
    writer.write(out)
    context.close()
    return writer


def main() -> int:
    """Print the book; without a browser, say what is missing."""
    html, out = map(Path, sys.argv[1:])
    program = find_browser()
    if program is None:
        print(MISSING, file=sys.stderr)
        return 1
    with open_browser(program) as browser:
        writer = print_book(browser, html, ROOT / "_toc.yml", out)
    print(f"{out}: {len(writer.pages)} pages, {out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
