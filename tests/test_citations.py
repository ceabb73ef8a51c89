"""Every citation has its entry in the bibliography, and every entry is cited.

A claim of a paper cites it, too, and so does evidence beyond our scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import yaml
from pybtex.database import BibliographyData, parse_string

from lnlib.registry import Paper, RegistryError, Source, load_registry, paper_name

ROOT = Path(__file__).resolve().parents[1]
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
ENTRIES = (ROOT / "book" / "references.bib").read_text("utf-8")

# Neither a DOI nor an arXiv id exists for these; they have a url.
WITHOUT = {
    "chintala2016how": "a page of advice in a repository",
    "ernst2005tree": "the journal gives no DOIs",
    "kim2022reversible": "on OpenReview alone",
    "radford2019language": "a report of the company that wrote it",
    "srivastava2014dropout": "the journal gives no DOIs",
}


def texts() -> dict[str, str]:
    """Return what the book says, by file: pages, and text cells of notebooks."""
    found = {
        str(path.relative_to(ROOT)): path.read_text("utf-8")
        for path in sorted((ROOT / "book").rglob("*.md"))
    }
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        told = [cell.source for cell in cells if cell.cell_type == "markdown"]
        found[str(path.relative_to(ROOT))] = "\n\n".join(told)
    for path in sorted((ROOT / "book" / "reach").glob("*.yml")):
        reach = yaml.safe_load(path.read_text("utf-8"))
        found[str(path.relative_to(ROOT))] = beyond(reach)
    return found | papers(load_registry())


def papers(registry: Mapping[str, Any]) -> dict[str, str]:
    """Return, by study, citations of the papers that its claims come from."""
    return {
        f"the registry of {study}": " ".join(
            f"{{cite}}`{claim.source.cite}`"
            for claim in record.claims
            if isinstance(claim.source, Paper)
        )
        for study, record in registry.items()
    }


def beyond(reach: Mapping[str, Any]) -> str:
    """Return citations of the papers that went further than the claims of a study."""
    return " ".join(
        f"{{cite}}`{paper['cite']}`"
        for far in reach.values()
        for paper in far["beyond"]
    )


def cited(text: str) -> set[str]:
    """Return the keys that a text cites."""
    return {key.strip() for keys in CITATION.findall(text) for key in keys.split(",")}


def faults(bibliography: str, texts: dict[str, str]) -> list[str]:
    """Return what is wrong between a bibliography and the texts that cite it."""
    data: BibliographyData = parse_string(bibliography, "bibtex")
    told = []
    used: set[str] = set()
    for name, text in texts.items():
        keys = cited(text)
        used |= keys
        told += [f"{name} cites {k}: no such entry" for k in keys - set(data.entries)]
    told += [f"{key} is cited nowhere" for key in set(data.entries) - used]
    for key, entry in data.entries.items():
        told += [f"{key} lacks {f}" for f in ("title", "year") if f not in entry.fields]
        if "author" not in entry.persons:
            told.append(f"{key} lacks author")
        doi, eprint = entry.fields.get("doi", ""), entry.fields.get("eprint", "")
        if doi and not re.fullmatch(r"10\.\d{4,9}/\S+", doi):
            told.append(f"{key} has no DOI in {doi}")
        if eprint and not re.fullmatch(r"\d{4}\.\d{4,5}|[a-z-]+/\d{7}", eprint):
            told.append(f"{key} has no arXiv id in {eprint}")
        if not (doi or eprint) and not (key in WITHOUT and "url" in entry.fields):
            told.append(f"{key} lacks an address: doi or eprint")
    return sorted(told)


def test_citations_and_bibliography_agree() -> None:
    assert faults(ENTRIES, texts()) == []


GOOD = """@article{a2020b, author = {A, B}, title = {C},
  year = {2020}, eprint = {2001.00001}}"""


def test_no_entry_is_excused_that_has_an_address() -> None:
    entries = parse_string(ENTRIES, "bibtex").entries
    assert [k for k in WITHOUT if {"doi", "eprint"} & set(entries[k].fields)] == []


@pytest.mark.parametrize(
    ("bibliography", "text", "fault"),
    [
        (GOOD, "{cite:p}`a2020b,missing`", "missing: no such entry"),
        (GOOD, "{cite:t}`missing` and {cite:p}`a2020b`", "missing: no such entry"),
        (GOOD, "nothing", "cited nowhere"),
        (GOOD.replace("author = {A, B},", ""), "{cite}`a2020b`", "lacks author"),
        (GOOD.replace("title = {C},", ""), "{cite}`a2020b`", "lacks title"),
        (GOOD.replace("year = {2020},", ""), "{cite}`a2020b`", "lacks year"),
        (GOOD.replace("eprint", "note"), "{cite}`a2020b`", "lacks an address"),
        (GOOD.replace("eprint", "url"), "{cite}`a2020b`", "lacks an address"),
        (GOOD.replace("2001.00001", "200.1"), "{cite}`a2020b`", "no arXiv id"),
        (GOOD.replace("eprint", "doi"), "{cite}`a2020b`", "no DOI"),
    ],
)
def test_faults_are_noticed(bibliography: str, text: str, fault: str) -> None:
    assert faults(GOOD, {"page.md": "{cite:p}`a2020b`"}) == []
    assert [f for f in faults(bibliography, {"page.md": text}) if fault in f]


def test_a_claim_of_a_paper_cites_it() -> None:
    claim = SimpleNamespace(source=Paper(cite="missing2020x", place="Section 2"))
    texts = papers({"toy": SimpleNamespace(claims=[claim])})
    texts["page.md"] = "{cite:p}`a2020b`"
    told = "the registry of toy cites missing2020x: no such entry"
    assert faults(GOOD, texts) == [told]


def test_evidence_beyond_our_scale_cites_its_paper() -> None:
    far = {"scale": "x", "beyond": [{"cite": "missing2020x"}, {"cite": "a2020b"}]}
    told = ["toy.yml cites missing2020x: no such entry"]
    assert faults(GOOD, {"toy.yml": beyond({"toy.one": far})}) == told


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("wilson1927probable", "Wilson (1927)"),
        ("li2020exponential", "Li and Arora (2020)"),
        ("kosson2024rotational", "Kosson et al. (2024)"),
        ("laarhoven2017regularization", "van Laarhoven (2017)"),
    ],
)
def test_a_page_names_a_paper(key: str, name: str) -> None:
    assert paper_name(key) == name


def test_a_claim_tells_its_place() -> None:
    paper = Paper(cite="li2020exponential", place="Section 2")
    assert str(paper) == "Li and Arora (2020), Section 2"
    text = Source(text="glossary", heading="Uses", sentence=6, quote="a use")
    assert str(text) == "glossary, “Uses”, sentence 6"


def test_a_page_refuses_an_unknown_paper() -> None:
    with pytest.raises(RegistryError, match="must cite an entry of references"):
        paper_name("missing2020x")
