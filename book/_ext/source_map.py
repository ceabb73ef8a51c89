"""Render the map of the source texts from its data in book/sources.

Directives:

- `source-map TEXT`: every sentence of a text, with its claims or the reason why it
  cannot be tested.
- `source-counts`: how many sentences there are, and what becomes of them.
- `source-studies`: the studies, with the number of claims that each takes.

The id of a registered claim is emitted as an inline node with the class `claim-ref`
and the attribute `claim`; the book's other extension puts a link and a verdict there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lnlib.choices import choose
from lnlib.registry import Paper, StudyRecord, load_registry
from lnlib.results import Project

FOLDER = Path(__file__).resolve().parents[1] / "sources"
REGISTRY = Project(FOLDER.parents[1]).registry
TEXTS = ("glossary", "chapter")
Registry = dict[str, StudyRecord]


def load_map(text: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Return the map of the source `text`; ValueError lists the valid names."""
    path = folder / f"{choose('source text', text, TEXTS)}.yml"
    source: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return source


def load_studies(folder: Path = FOLDER) -> dict[str, dict[str, str]]:
    """Return `field` and `question` of every study, by its name, in the book's order.

    Raises:
        ValueError: an entry has other keys, or a value that is no text.
    """
    studies: dict[str, dict[str, str]] = yaml.safe_load(
        (folder / "studies.yml").read_text("utf-8")
    )
    for name, about in studies.items():
        keys = set(about) if isinstance(about, dict) else about
        if keys != {"field", "question"} or not all(
            isinstance(text, str) for text in about.values()
        ):
            raise ValueError(
                f"studies.yml: {name} must have a `field` and a `question`, both "
                f"texts; received {about!r}"
            )
    return studies


def sentences(source: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the heading and the entry of every sentence, in order."""
    for place in source["map"]:
        for sentence in place["sentences"]:
            yield place["heading"], sentence


def place_id(text: str, heading: str, number: int | None = None) -> str:
    """Return the anchor of a heading or of a sentence on the page of its text."""
    return str(nodes.make_id(f"{text} {heading}" + (f" {number}" if number else "")))


def homes(maps: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, by claim id, the entry at its home: the one that names a study."""
    return {
        entry["id"]: entry
        for source in maps
        for _, sentence in sentences(source)
        for entry in sentence.get("claims", ())
        if "study" in entry
    }


def counts(source: dict[str, Any]) -> list[int]:
    """Count sentences: all, tested, not testable."""
    tested = ["claims" in s for _, s in sentences(source)]
    return [len(tested), sum(tested), len(tested) - sum(tested)]


class _Base(SphinxDirective):
    """Loads the data, and makes the page depend on every file of it."""

    def load(self) -> None:
        self.registry: Registry = load_registry(REGISTRY)
        self.maps = {text: load_map(text) for text in TEXTS}
        found = homes(list(self.maps.values()))
        self.owner = {claim: entry["study"] for claim, entry in found.items()}
        for path in (*FOLDER.glob("*.yml"), *REGISTRY.glob("*.yml")):
            self.env.note_dependency(str(path))


class SourceMap(_Base):
    """The sentences of one text under their headings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the counts, and one section per heading that has sentences."""
        self.load()
        text = choose("source text", self.arguments[0], TEXTS)
        source = self.maps[text]
        n = counts(source)
        summary = f"{n[0]} sentences: {n[1]} are tested, {n[2]} cannot be."
        return [nodes.paragraph(text=summary)] + [
            self._section(text, place["heading"], place["sentences"])
            for place in source["map"]
            if place["sentences"]
        ]

    def _section(
        self, text: str, heading: str, told: list[dict[str, Any]]
    ) -> nodes.Node:
        section = nodes.section("", nodes.title(text=heading))
        section["ids"].append(place_id(text, heading))
        listed = nodes.enumerated_list(enumtype="arabic", prefix="", suffix=".")
        for sentence in told:
            item = nodes.list_item("", self._quote(sentence))
            item["ids"].append(place_id(text, heading, sentence["number"]))
            if "reason" in sentence:
                reason = nodes.paragraph(classes=["source-reason"])
                reason += nodes.strong(text="Not testable. ")
                reason += nodes.Text(sentence["reason"])
                item += reason
            else:
                claims = (self._claim(entry) for entry in sentence["claims"])
                item += nodes.bullet_list("", *claims, classes=["source-claims"])
            listed += item
        section += listed
        return section

    def _quote(self, sentence: dict[str, Any]) -> nodes.paragraph:
        words = sentence["quote"]
        whole = hashlib.sha256(words.encode()).hexdigest() == sentence["sha256"]
        quote = nodes.paragraph(classes=["source-quote"])
        quote += nodes.Text("“")
        for i, part in enumerate(words.split("$")):
            quote += nodes.math(part, part) if i % 2 else nodes.Text(part)
        quote += nodes.Text("”" if whole else " …”")
        return quote

    def _claim(self, entry: dict[str, Any]) -> nodes.list_item:
        claim, study = entry["id"], self.owner[entry["id"]]
        told = nodes.paragraph()
        told += nodes.inline(text=claim, classes=["claim-ref"], claim=claim)
        record = self.registry[study]
        says = record.claim(claim).says
        repeated = "" if "study" in entry else "repeated here; "
        told += nodes.Text(f" {says} ({repeated}")
        told += nodes.emphasis(text=record.title)
        told += nodes.Text(")")
        return nodes.list_item("", told)


class SourceCounts(_Base):
    """A table: how many sentences, and what becomes of them."""

    def run(self) -> list[nodes.Node]:
        """Return the table with one column per text and one for both."""
        self.load()
        columns = [counts(self.maps[text]) for text in TEXTS]
        columns.append([sum(both) for both in zip(*columns, strict=True)])
        names = ("sentences", "tested", "not testable")
        rows = [
            [name, *map(str, row)]
            for name, row in zip(names, zip(*columns, strict=True), strict=True)
        ]
        return [_table(["number of", *TEXTS, "both"], rows)]


class SourceStudies(_Base):
    """A list: every study, its question, and its number of claims."""

    def run(self) -> list[nodes.Node]:
        """Return the list in the order of the book."""
        self.load()
        listed = nodes.bullet_list()
        for study, about in load_studies().items():
            n = sum(owner == study for owner in self.owner.values())
            told = nodes.paragraph()
            told += nodes.emphasis(text=self.registry[study].title)
            claims = "1 claim" if n == 1 else f"{n or 'no'} claims"
            of_papers = self._of_papers(study)
            papers = f"; {of_papers} of papers" if of_papers else ""
            told += nodes.Text(f": {about['question']} ({claims} of the texts{papers})")
            listed += nodes.list_item("", told)
        return [listed]

    def _of_papers(self, study: str) -> int:
        """Return how many of the study's claims come from papers."""
        claims = self.registry[study].claims
        return sum(isinstance(claim.source, Paper) for claim in claims)


def _table(head: list[str], rows: list[list[str]]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", _row(head))
    group += nodes.tbody("", *map(_row, rows))
    return nodes.table("", group)


def _row(cells: list[str]) -> nodes.row:
    return nodes.row(
        "", *(nodes.entry("", nodes.paragraph(text=cell)) for cell in cells)
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("source-map", SourceMap)
    app.add_directive("source-counts", SourceCounts)
    app.add_directive("source-studies", SourceStudies)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
