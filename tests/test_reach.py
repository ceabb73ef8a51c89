"""Each claim says how far it was tested: at our largest scale, and by papers beyond."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import yaml

from lnlib import data
from lnlib.registry import load_registry, load_study, study_names

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "book" / "reach"
STUDIES = study_names()


def numbers(text: str) -> set[str]:
    """Return the integers of a text that have two digits or more, without points."""
    text = re.sub(r"(?<=\d)_(?=\d)", "", text)
    return set(re.findall(r"(?<![\d.])\d{2,}(?!\d|\.\d)", text))


def settings(study: str) -> set[str]:
    """Return the integers of a study's code, its registry, and the data of lnlib."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{study}.ipynb", as_version=4)
    told = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    told.append((ROOT / "lnlib" / "registry" / f"{study}.yml").read_text("utf-8"))
    told.append((ROOT / "lnlib" / "data.py").read_text("utf-8"))
    sizes = {str(n) for name in data.BUNDLED for n in data.load(name).features.shape}
    return numbers(" ".join(told)) | sizes


def invented(scale: str, known: set[str]) -> list[str]:
    """Return the numbers of a scale that no setting of its study has."""
    return sorted(numbers(scale) - known)


@pytest.mark.parametrize("study", STUDIES)
def test_every_claim_says_how_far_it_was_tested(extension: Any, study: str) -> None:
    record = load_study(study)
    assert list(extension.load_reach(record)) == [claim.id for claim in record.claims]


@pytest.mark.parametrize("study", STUDIES)
def test_no_scale_is_invented(extension: Any, study: str) -> None:
    known = settings(study)
    wrong = {
        claim: strange
        for claim, reach in extension.load_reach(load_study(study)).items()
        if (strange := invented(reach.scale, known))
    }
    assert not wrong, "numbers that stand in no code, registry or data of the study"


def test_an_invented_scale_is_noticed() -> None:
    known = numbers("n, width = 1_797, 64  # 0.25, seeds_12, 1e-5, 32.")
    assert known == {"1797", "64", "12", "32"}
    assert (
        invented("1797 images of 64 pixels, 12 seeds, rate 0.33, 4 layers", known) == []
    )
    assert invented("17 images, 6400 pixels, 128 layers", known) == [
        "128",
        "17",
        "6400",
    ]


@pytest.mark.parametrize("study", STUDIES)
def test_the_texts_are_phrases_and_sentences(extension: Any, study: str) -> None:
    for claim, reach in extension.load_reach(load_study(study)).items():
        phrases = [reach.scale, *(paper.at for paper in reach.beyond)]
        sentences = [paper.says for paper in reach.beyond]
        assert [text for text in phrases if text.endswith(".")] == [], claim
        assert [text for text in sentences if not text.endswith(".")] == [], claim
        assert [t for t in phrases + sentences if re.search(r"[`$*<\\]", t)] == [], (
            claim
        )


def test_no_file_is_left_over() -> None:
    assert {path.stem for path in FOLDER.iterdir()} <= set(STUDIES)


TOY = SimpleNamespace(
    study="toy", claims=[SimpleNamespace(id="toy.one"), SimpleNamespace(id="toy.two")]
)
PAPER = {
    "cite": "ba2016layer",
    "at": "a recurrent network",
    "says": "It trains.",
    "agrees": True,
}
ONE = {"scale": "64 features", "beyond": [PAPER]}
TWO = {"scale": "8 layers", "beyond": []}


def loaded(extension: Any, folder: Path, reach: Any) -> Any:
    """Write the reach of a toy study, and load it."""
    text = reach if isinstance(reach, str) else yaml.safe_dump(reach, sort_keys=False)
    (folder / "toy.yml").write_text(text, "utf-8")
    return extension.load_reach(TOY, folder)


def test_yes_and_no_are_words(extension: Any, tmp_path: Path) -> None:
    for written in ("yes", "no", "in part"):
        paper = f"{{cite: ba2016layer, at: a, says: It is., agrees: {written}}}"
        text = f"toy.one: {{scale: a, beyond: [{paper}]}}\n"
        text += "toy.two: {scale: b, beyond: []}"
        (found,) = loaded(extension, tmp_path, text)["toy.one"].beyond
        assert found.agrees == written


@pytest.mark.parametrize(
    ("reach", "complaint"),
    [
        ({"toy.one": ONE}, "missing: toy.two; unknown: none"),
        ({"toy.one": ONE, "toy.two": TWO, "toy.three": TWO}, "unknown: toy.three"),
        ({"toy.two": TWO, "toy.one": ONE}, "in the order of the registry"),
        ({"toy.one": ONE, "toy.two": TWO | {"scale": " "}}, r"`toy\.two`\.scale"),
        ({"toy.one": ONE, "toy.two": {"scale": "a"}}, r"`toy\.two`\.beyond"),
        ({"toy.one": ONE, "toy.two": TWO | {"n": 3}}, r"`toy\.two`\.n"),
        (
            {"toy.one": {"scale": "a", "beyond": [PAPER | {"cite": "missing2020x"}]}},
            "must cite an entry of references.bib; received 'missing2020x'",
        ),
        (
            {"toy.one": {"scale": "a", "beyond": [PAPER | {"agrees": "maybe"}]}},
            "'yes', 'no' or 'in part'",
        ),
        (
            {"toy.one": {"scale": "a", "beyond": [PAPER | {"says": ""}]}},
            r"beyond\.0\.says",
        ),
        ("[", "does not say what it must"),
        ("3", "does not say what it must"),
    ],
)
def test_a_broken_entry_is_refused(
    extension: Any, tmp_path: Path, reach: Any, complaint: str
) -> None:
    assert list(loaded(extension, tmp_path, {"toy.one": ONE, "toy.two": TWO})) == [
        "toy.one",
        "toy.two",
    ]
    with pytest.raises(extension.ExtensionError, match=complaint):
        loaded(extension, tmp_path, reach)


def test_a_study_without_its_file_is_refused(extension: Any, tmp_path: Path) -> None:
    with pytest.raises(extension.ExtensionError, match=r"toy\.yml is missing"):
        extension.load_reach(TOY, tmp_path)


def test_a_paper_that_the_references_lack_is_refused(extension: Any) -> None:
    listed = SimpleNamespace(key="ba2016layer", citation_id="id7")
    domain = SimpleNamespace(citations=[listed])
    env = SimpleNamespace(get_domain={"cite": domain}.get)
    page = extension.Page(SimpleNamespace(env=env), extension.REFERENCES)
    assert page.paper("ba2016layer") == "#id7"
    with pytest.raises(extension.ExtensionError, match="must list missing2020x"):
        page.paper("missing2020x")


def test_a_claim_shows_its_falsifier_scale_and_papers(extension: Any) -> None:
    claim = next(iter(load_registry().values())).claims[0]
    page = SimpleNamespace(
        link=lambda name: f"{name}.html", paper=lambda key: f"#{key}"
    )
    papers = [PAPER | {"agrees": word} for word in ("yes", "no", "in part")]
    reach = extension.Reach(scale="a < b", beyond=papers)
    html = extension.reach_html(page, claim, reach)
    assert claim.falsifier in html
    assert 'href="book/changes.html">Dispute a verdict</a>' in html
    assert "a &lt; b." in html
    assert html.count('href="#ba2016layer">Ba et al. (2016)</a>') == 3
    for word in ("Agrees", "Disagrees", "Agrees in part"):
        assert f">{word} with “{claim.expected}”." in html
    alone = extension.reach_html(page, claim, extension.Reach(scale="a", beyond=[]))
    assert "No evidence at a larger scale was found." in alone
