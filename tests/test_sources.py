"""The map of the source texts is complete, and in step with the registry.

Every check returns a list of problems; the tests below damage a copy of the map in
each way that matters and expect the problem to be named.

With LNLIB_SOURCES naming a folder that holds the two texts, under any names, the map
is also compared with them sentence by sentence.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from html import unescape
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from studies import blocks

from lnlib.registry import Paper, StudyRecord, load_registry, load_study

BOOK = Path(__file__).resolve().parents[1] / "book"
HEX = re.compile(r"[0-9a-f]{64}")
CLAIM = re.compile(r"[a-z0-9]+\.[a-z0-9-]+")
Maps = dict[str, dict[str, Any]]


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


splitter = module(BOOK / "sources" / "split.py")
source_map = module(BOOK / "_ext" / "source_map.py")
STUDIES = source_map.load_studies()
MAPS: Maps = {text: source_map.load_map(text) for text in source_map.TEXTS}


# ------------------------------------------------------------------- checks


def problems_of_text(source: dict[str, Any]) -> list[str]:
    """Is the map of one text complete and well formed?"""
    found = []
    text = source["text"]
    headings = [place["heading"] for place in source["map"]]
    for heading, times in Counter(headings).items():
        if times > 1:
            found.append(f"{text}: heading {heading!r} stands {times} times")
    for place in source["map"]:
        numbers = [s["number"] for s in place["sentences"]]
        if numbers != list(range(1, len(numbers) + 1)):
            found.append(f"{text}, {place['heading']}: numbers must be 1, 2, …")
    for heading, sentence in source_map.sentences(source):
        where = f"{text}, {heading}, {sentence['number']}"
        found += (f"{where}: {p}" for p in problems_of_sentence(sentence))
    digests = [s["sha256"] for _, s in source_map.sentences(source)]
    if len(digests) != source["sentences"]:
        found.append(
            f"{text}: must have {source['sentences']} sentences, has {len(digests)}"
        )
    if splitter.digest_of_all(digests) != source["sha256"]:
        found.append(f"{text}: the digest over all sentences does not match")
    return found


def problems_of_sentence(sentence: dict[str, Any]) -> list[str]:
    """Has a sentence its quote, its digest, and claims or a reason?"""
    found = []
    keys = {"number", "quote", "sha256", "claims", "reason"}
    if unknown := sentence.keys() - keys:
        found.append(f"unknown fields {sorted(unknown)}")
    if not 1 <= len(sentence["quote"].split()) <= 8:
        found.append("must quote one to eight words")
    if not HEX.fullmatch(sentence["sha256"]):
        found.append("sha256 must be 64 hexadecimal digits")
    if ("claims" in sentence) == ("reason" in sentence):
        found.append("must have either claims or a reason")
    if "reason" in sentence and len(sentence["reason"].split()) < 3:
        found.append("the reason must be a sentence")
    if "claims" in sentence:
        ids = [entry["id"] for entry in sentence["claims"]]
        if not ids or len(set(ids)) < len(ids):
            found.append("must name at least one claim, and each once")
    for entry in sentence.get("claims", ()):
        if not CLAIM.fullmatch(entry["id"]):
            found.append(f"{entry['id']!r} is no claim id")
        if unknown := entry.keys() - {"id", "study"}:
            found.append(f"{entry['id']}: unknown fields {sorted(unknown)}")
    return found


def problems_of_claims(maps: Maps, studies: Mapping[str, Any]) -> list[str]:
    """Has each claim one home, and a home a known study?"""
    found = []
    entries = [
        entry
        for source in maps.values()
        for _, sentence in source_map.sentences(source)
        for entry in sentence.get("claims", ())
    ]
    homes = Counter(entry["id"] for entry in entries if "study" in entry)
    for claim in sorted({entry["id"] for entry in entries}):
        if homes[claim] != 1:
            found.append(f"{claim}: must have one home, has {homes[claim]}")
    for entry in entries:
        if "study" in entry and entry["study"] not in studies:
            found.append(f"{entry['id']}: {entry['study']} is not in studies.yml")
    return found


def problems_with_registry(
    maps: Maps, studies: Mapping[str, Any], registry: dict[str, Any]
) -> list[str]:
    """Do the map and the registry name the same claims at the same places?

    So each testable sentence has a claim that a study judges.
    """
    found = []
    places = {}
    for text, source in maps.items():
        for heading, sentence in source_map.sentences(source):
            for entry in sentence.get("claims", ()):
                if "study" in entry:
                    place = (text, heading, sentence["number"], sentence["quote"])
                    places[entry["id"]] = (place, entry)
    for claim, (_, entry) in places.items():
        study = entry["study"]
        if study not in registry:
            found.append(f"{claim}: {study}, which is to judge it, is not registered")
        elif claim not in {c.id for c in registry[study].claims}:
            found.append(f"{claim}: the registry of {study} does not have it")
    found += (
        f"{study} is not registered" for study in sorted(studies.keys() - registry)
    )
    for study, record in registry.items():
        if study not in studies:
            found.append(f"{study} is registered and not in studies.yml")
        for claim in record.claims:
            s = claim.source
            if isinstance(s, Paper):  # tests/test_citations.py asks for its entry
                continue
            if claim.id not in places:
                found.append(f"{claim.id}: registered by {study}, not in the map")
                continue
            place, entry = places[claim.id]
            if entry["study"] != study:
                found.append(
                    f"{claim.id}: registered by {study}, the map says {entry['study']}"
                )
            if place != (s.text, s.heading, s.sentence, s.quote):
                found.append(
                    f"{claim.id}: the registry says {s.text}, {s.heading}, "
                    f"{s.sentence}, {s.quote!r}; the map says {place}"
                )
    return found


def problems_with_source(source: dict[str, Any], text: str) -> list[str]:
    """Is the map that of `text`, sentence by sentence and in order?"""
    found = []
    places = splitter.split(text)
    headings = [place["heading"] for place in source["map"]]
    if headings != list(places):
        found.append(f"headings must be {list(places)}, are {headings}")
    for place in source["map"]:
        heading, mapped = place["heading"], place["sentences"]
        told = places.get(heading, [])
        if len(mapped) != len(told):
            found.append(f"{heading}: has {len(mapped)} of {len(told)} sentences")
        for entry, sentence in zip(mapped, told, strict=False):
            where = f"{heading}, {entry['number']}"
            if entry["sha256"] != splitter.digest(sentence):
                found.append(f"{where}: the digest is that of another sentence")
            if not sentence.startswith(entry["quote"]):
                found.append(f"{where}: the quote must be the sentence's opening")
    return found


def problems(maps: Maps, registry: dict[str, Any]) -> list[str]:
    """Return every problem of the map that shows without the texts."""
    return [
        *(p for source in maps.values() for p in problems_of_text(source)),
        *problems_of_claims(maps, STUDIES),
        *problems_with_registry(maps, STUDIES, registry),
    ]


# ------------------------------------------------------------ the real map


def test_the_map_is_complete() -> None:
    found = [p for source in MAPS.values() for p in problems_of_text(source)]
    assert found + problems_of_claims(MAPS, STUDIES) == []


def test_the_map_is_in_step_with_the_registry() -> None:
    assert problems_with_registry(MAPS, STUDIES, load_registry()) == []


def find_text(folder: Path, title: str) -> str | None:
    """Return the text in `folder` whose first heading is `title`."""
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        text = path.read_text("utf-8", errors="replace")
        try:
            places = splitter.split(text)
        except ValueError:
            continue
        if next(iter(places), None) == title:
            return text
    return None


@pytest.mark.parametrize("name", MAPS)
def test_the_map_is_that_of_the_text(name: str) -> None:
    folder = os.environ.get("LNLIB_SOURCES")
    if not folder:
        pytest.skip("set LNLIB_SOURCES to a folder with the texts to compare them")
    text = find_text(Path(folder), MAPS[name]["title"])
    assert text is not None, f"no file in {folder} starts with {MAPS[name]['title']!r}"
    assert problems_with_source(MAPS[name], text) == []


# --------------------------------------------------------- each check fails


def sentence_of(maps: Maps, heading: str, number: int) -> dict[str, Any]:
    for source in maps.values():
        for place, sentence in source_map.sentences(source):
            if place == heading and sentence["number"] == number:
                return sentence
    raise LookupError(f"no sentence {number} under {heading!r}")


DROPOUT = "Interaction with Other Regularization Techniques"


def in_step() -> tuple[Maps, dict[str, Any]]:
    """Return a copy of the maps, and a registry in step with it."""
    maps = copy.deepcopy(MAPS)
    registry = {study: SimpleNamespace(study=study, claims=[]) for study in STUDIES}
    for text, source in maps.items():
        for heading, sentence in source_map.sentences(source):
            for entry in sentence.get("claims", ()):
                if "study" in entry:
                    place = SimpleNamespace(
                        text=text,
                        heading=heading,
                        sentence=sentence["number"],
                        quote=sentence["quote"],
                    )
                    claim = SimpleNamespace(id=entry["id"], source=place)
                    registry[entry["study"]].claims.append(claim)
    return maps, registry


def test_an_undamaged_copy_has_no_problem() -> None:
    maps, registry = in_step()
    assert problems(maps, registry) == []


def drop_a_sentence(s: dict[str, Any], told: list[dict[str, Any]]) -> None:
    told.remove(s)


def drop_the_last(s: dict[str, Any], told: list[dict[str, Any]]) -> None:
    told.pop()


def swap_two(s: dict[str, Any], told: list[dict[str, Any]]) -> None:
    told[0]["sha256"], told[1]["sha256"] = told[1]["sha256"], told[0]["sha256"]


def change(**fields: Any) -> Callable[..., None]:
    return lambda s, told: s.update(fields)


def change_claim(**fields: Any) -> Callable[..., None]:
    return lambda s, told: s["claims"][0].update(fields)


def remove(field: str) -> Callable[..., None]:
    return lambda s, told: s.pop(field)


def remove_home(s: dict[str, Any], told: list[dict[str, Any]]) -> None:
    del s["claims"][0]["study"]


def repeat_claim(s: dict[str, Any], told: list[dict[str, Any]]) -> None:
    s["claims"].append({"id": s["claims"][0]["id"]})


def second_home(s: dict[str, Any], told: list[dict[str, Any]]) -> None:
    told[1]["claims"][0]["study"] = "dropout_variance_bias"


def move_claim(s: dict[str, Any], told: list[dict[str, Any]]) -> None:
    told[4]["claims"].append(s["claims"].pop())


# Sentence 4 of the section on dropout is the home of one claim, which 2 repeats.
DAMAGES = {
    "a sentence is gone": (drop_a_sentence, "numbers must be 1, 2"),
    "the last is gone": (drop_the_last, "must have 126 sentences, has 125"),
    "two are swapped": (swap_two, "digest over all sentences"),
    "a wrong number": (change(number=7), "numbers must be 1, 2"),
    "claims and a reason": (change(reason="It is an opinion."), "either claims or"),
    "neither": (remove("claims"), "either claims or"),
    "no claim": (change(claims=[]), "at least one claim"),
    "a claim twice": (repeat_claim, "each once"),
    "nine words": (change(quote="a b c d e f g h i"), "one to eight words"),
    "no words": (change(quote=""), "one to eight words"),
    "a short digest": (change(sha256="abc"), "64 hexadecimal digits"),
    "an unknown field": (change(verdict="holds"), "unknown fields ['verdict']"),
    "a typed verdict": (change_claim(verdict="holds"), "unknown fields ['verdict']"),
    "no claim id": (change_claim(id="Dropout bias"), "is no claim id"),
    "an unknown id": (change_claim(id="dropout.no"), "registry of dropout_variance_"),
    "no home": (remove_home, "dropout.overestimates: must have one home, has 0"),
    "two homes": (second_home, "dropout.overestimates: must have one home, has 2"),
    "an unknown study": (change_claim(study="dropout"), "is not in studies.yml"),
    "another study": (change_claim(study="rnn_fixed_points"), "the map says rnn_"),
    "a moved claim": (move_claim, "Techniques, 4, 'Consequently"),
    "another quote": (change(quote="Consequently"), "the registry says chapter"),
    "words of its own": (change_claim(says="It is."), "unknown fields ['says']"),
}


@pytest.mark.parametrize(("damage", "told"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_map_is_named(damage: Callable[..., None], told: str) -> None:
    maps, registry = in_step()
    section = next(p for p in maps["chapter"]["map"] if p["heading"] == DROPOUT)
    damage(section["sentences"][3], section["sentences"])
    assert told in "\n".join(problems(maps, registry))


def test_an_empty_reason_is_named() -> None:
    maps = copy.deepcopy(MAPS)
    sentence_of(maps, DROPOUT, 1)["reason"] = "No."
    assert "the reason must be" in "\n".join(problems_of_text(maps["chapter"]))


def test_a_heading_twice_is_named() -> None:
    maps = copy.deepcopy(MAPS)
    maps["chapter"]["map"].append({"heading": DROPOUT, "sentences": []})
    assert "stands 2 times" in "\n".join(problems_of_text(maps["chapter"]))


def register_nothing(claims: list[Any]) -> None:
    claims.clear()


def register_another(claims: list[Any]) -> None:
    claims.append(SimpleNamespace(id="dropout.new", source=claims[0].source))


def register_elsewhere(claims: list[Any]) -> None:
    claims[0].source.sentence = 5


def register_other_heading(claims: list[Any]) -> None:
    claims[0].source.heading = "Conclusion"


def register_other_text(claims: list[Any]) -> None:
    claims[0].source.text = "glossary"


def register_other_quote(claims: list[Any]) -> None:
    claims[0].source.quote = "While dropout"


REGISTERED = {
    register_nothing: "the registry of dropout_variance_bias does not have it",
    register_another: "dropout.new: registered by dropout_variance_bias, not in",
    register_elsewhere: "dropout.subtle: the registry says chapter",
    register_other_heading: "the registry says chapter, Conclusion",
    register_other_text: "the registry says glossary",
    register_other_quote: "'While dropout'",
}


@pytest.mark.parametrize(("damage", "told"), REGISTERED.items())
def test_a_registry_out_of_step_is_named(
    damage: Callable[[list[Any]], None], told: str
) -> None:
    maps, registry = in_step()
    damage(registry["dropout_variance_bias"].claims)
    assert told in "\n".join(problems(maps, registry))


def test_a_study_without_its_line_is_named() -> None:
    maps, registry = in_step()
    registry["novel"] = SimpleNamespace(study="novel", claims=[])
    assert "novel is registered and not" in "\n".join(problems(maps, registry))


def test_a_claim_of_a_paper_needs_no_place_in_the_map() -> None:
    maps, registry = in_step()
    paper = Paper(cite="a2020b", place="Section 2")
    claims = registry["dropout_variance_bias"].claims
    claims.append(SimpleNamespace(id="dropout.new", source=paper))
    assert problems(maps, registry) == []


def test_a_sentence_that_no_study_judges_is_named() -> None:
    maps, registry = in_step()
    del registry["dropout_variance_bias"]
    told = "\n".join(problems(maps, registry))
    assert "dropout.mean-kept: dropout_variance_bias, which is to judge it" in told
    assert "\ndropout_variance_bias is not registered" in told


# ------------------------------------------------------------- the example

EXAMPLE = [yaml.safe_load(block) for block in blocks("add_a_study.md", "yaml")]


def problems_with_example(registered: bool) -> list[str]:
    """Return the problems after the steps of add_a_study.md, on copies."""
    line, entries, record = EXAMPLE
    maps, registry = copy.deepcopy(MAPS), load_registry()
    heading = record["claims"][0]["source"]["heading"]
    for entry in copy.deepcopy(entries):
        sentence = sentence_of(maps, heading, entry["number"])
        assert sentence["quote"] == entry["quote"]
        sentence.setdefault("claims", []).extend(entry["claims"])
    if registered:
        registry["mean_removal"] = StudyRecord.model_validate(record)
    studies = STUDIES | line
    return [
        *(p for source in maps.values() for p in problems_of_text(source)),
        *problems_of_claims(maps, studies),
        *problems_with_registry(maps, studies, registry),
    ]


def test_the_example_of_a_study_is_in_step_with_the_map() -> None:
    assert problems_with_example(registered=True) == []
    assert len(problems_with_example(registered=False)) == 3


# ------------------------------------------------------------- the splitter

TEXT = """\
Toy Entry

Short Part

A [bold](@id) claim *about* LN. It has e.g. two sentences! See eq. (1).

The items are:

  • first item
    • second item
  1. third item

y = g(x)

# Last Part: With a Mark.
"""
SENTENCES = {
    "Toy Entry": [],
    "Short Part": [
        "A bold claim about LN.",
        "It has e.g. two sentences!",
        "See eq. (1).",
        "The items are:",
        "first item",
        "second item",
        "third item",
        "y = g(x)",
    ],
    "Last Part: With a Mark.": [],
}


def test_the_splitter_follows_its_rule() -> None:
    assert splitter.split(TEXT) == SENTENCES


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("No heading here.", "must start with a heading"),
        ("# A\n\n# A", "stands twice"),
    ],
)
def test_the_splitter_refuses_other_texts(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        splitter.split(text)


def toy_map() -> dict[str, Any]:
    return {
        "map": [
            {
                "heading": heading,
                "sentences": [
                    {"number": n, "quote": s[:9], "sha256": splitter.digest(s)}
                    for n, s in enumerate(told, start=1)
                ],
            }
            for heading, told in SENTENCES.items()
        ]
    }


def test_a_text_agrees_with_its_map() -> None:
    assert problems_with_source(toy_map(), TEXT) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("first item", "first item changed", "5: the digest is that of another"),
        ("first item", "item", "5: the quote must be"),
        ("  • first item\n", "", "has 8 of 7 sentences"),
        ("two sentences! See", "two sentences. And more. See", "has 8 of 9"),
        ("Short Part", "Long Part", "headings must be"),
    ],
)
def test_a_text_that_differs_is_named(old: str, new: str, told: str) -> None:
    assert told in "\n".join(problems_with_source(toy_map(), TEXT.replace(old, new)))


def test_a_text_is_known_by_its_title(tmp_path: Path) -> None:
    (tmp_path / "1.bin").write_bytes(b"\xff\xfe no heading.")
    (tmp_path / "2.txt").write_text(TEXT, "utf-8")
    assert find_text(tmp_path, "Toy Entry") == TEXT
    assert find_text(tmp_path, "Short Part") is None


# ---------------------------------------------------------------- the pages

CONF = f"""\
import sys
sys.path[:0] = [{str(BOOK / "_ext")!r}, {str(BOOK.parent)!r}]
extensions = ["myst_parser", "source_map"]
html_theme = "basic"
root_doc = "index"
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The three pages as HTML, rendered with warnings as errors."""
    folder = tmp_path_factory.mktemp("sources")
    names = ("index", "glossary", "chapter")
    for name in names:
        page = (BOOK / "sources" / f"{name}.md").read_text("utf-8")
        (folder / f"{name}.md").write_text("---\norphan: true\n---\n" + page, "utf-8")
    (folder / "conf.py").write_text(CONF, "utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", ".", "out"]
    elsewhere = os.environ | {"LNLIB_REGISTRY": str(folder)}  # of kernels, not of pages
    done = subprocess.run(
        command, cwd=folder, env=elsewhere, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    html = {n: (folder / "out" / f"{n}.html").read_text("utf-8") for n in names}
    return {name: unescape(page).replace("’", "'") for name, page in html.items()}


@pytest.mark.xdist_group("source_pages")
@pytest.mark.parametrize("text", MAPS)
def test_a_page_shows_every_sentence(pages: dict[str, str], text: str) -> None:
    for heading, sentence in source_map.sentences(MAPS[text]):
        place = source_map.place_id(text, heading, sentence["number"])
        assert pages[text].count(f'id="{place}"') == 1
        for entry in sentence.get("claims", ()):
            assert entry["id"] in pages[text]
        assert sentence.get("reason", "") in pages[text]


@pytest.mark.xdist_group("source_pages")
def test_the_index_counts_and_lists(pages: dict[str, str]) -> None:
    titles = [load_study(study).title.replace("’", "'") for study in STUDIES]
    assert all(f"<em>{title}</em>" in pages["index"] for title in titles)
    for source in MAPS.values():
        every, tested, other = source_map.counts(source)
        assert every == source["sentences"] == tested + other
        assert all(f"<p>{n}</p>" in pages["index"] for n in (every, tested, other))


def test_sentences_are_counted() -> None:
    toy = [{"claims": [{"id": "a.x"}]}, {"reason": "An opinion."}, {"reason": "No."}]
    source = {"map": [{"heading": "A", "sentences": toy}]}
    assert source_map.counts(source) == [3, 1, 2]
