"""The one rule, the registry's checks and the study's book-keeping."""

from __future__ import annotations

import copy
import json
import math
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from lnlib import claims, registry
from lnlib.claims import Evidence, make_evidence, verdict_of
from lnlib.registry import Prediction
from lnlib.stats import Estimate

FACTORS = {"task": ["rows", "pixels"]}


def a_prediction_model(**fields: Any) -> Prediction:
    base = {"name": "p", "kind": "stated", "quantity": "a number", "reason": "because"}
    return Prediction.model_validate(base | fields)


def stated(relation: str = ">", bound: Any = 0.0, task: str = "rows") -> Prediction:
    return a_prediction_model(relation=relation, bound=bound, levels={"task": task})


def evidence(low: float, high: float, **kw: Any) -> Evidence:
    return Evidence(stated(**kw), Estimate((low + high) / 2, low, high, 12))


MET, MISSED, OPEN = (1.0, 2.0), (-2.0, -1.0), (-1.0, 1.0)


@pytest.mark.parametrize(
    ("relation", "bound", "interval", "outcome"),
    [
        (">", 0.0, (0.1, 1.0), "met"),
        (">", 0.0, (-1.0, -0.1), "missed"),
        (">", 0.0, (-0.1, 0.1), "open"),
        (">", 0.0, (0.0, 0.1), "open"),
        ("<", 0.0, (-1.0, -0.1), "met"),
        ("<", 0.0, (0.1, 1.0), "missed"),
        ("<", 0.0, (-0.1, 0.1), "open"),
        ("within", (-1.0, 1.0), (-0.5, 1.0), "met"),
        ("within", (-1.0, 1.0), (1.1, 2.0), "missed"),
        ("within", (-1.0, 1.0), (-3.0, -1.1), "missed"),
        ("within", (-1.0, 1.0), (0.5, 1.5), "open"),
        ("within", (-1.0, 1.0), (-2.0, 2.0), "open"),
    ],
)
def test_outcome(relation: str, bound: Any, interval: Any, outcome: str) -> None:
    assert evidence(*interval, relation=relation, bound=bound).outcome == outcome


@pytest.mark.parametrize(
    ("cells", "verdict"),
    [
        ([(MET, "rows"), (MET, "pixels")], "holds"),
        ([(MISSED, "rows"), (MISSED, "pixels")], "fails"),
        ([(MET, "rows"), (MISSED, "pixels")], "conditional"),
        ([(MET, "rows"), (MISSED, "rows")], "undecided"),
        ([(MET, "rows"), (OPEN, "pixels")], "undecided"),
        ([(MISSED, "rows"), (OPEN, "pixels")], "undecided"),
        ([(MET, "rows"), (MISSED, "pixels"), (OPEN, "pixels")], "undecided"),
        ([(MET, "rows"), (MISSED, "pixels"), (MISSED, "rows")], "undecided"),
    ],
)
def test_verdict(cells: Any, verdict: str) -> None:
    assert verdict_of([evidence(*i, task=t) for i, t in cells]) == verdict


INTERVALS = st.tuples(st.floats(-5, 5), st.floats(-5, 5)).map(sorted)
STATED = st.lists(st.tuples(INTERVALS, st.sampled_from(["rows", "pixels"])), min_size=1)


@given(STATED, st.randoms())
def test_verdict_ignores_order(cells: Any, random: Any) -> None:
    items = [evidence(*i, task=t) for i, t in cells]
    shuffled = random.sample(items, len(items))
    assert verdict_of(items) == verdict_of(shuffled)


@given(STATED)
def test_mirrored_evidence_swaps_holds_and_fails(cells: Any) -> None:
    swap = {"holds": "fails", "fails": "holds"}
    items = [evidence(*i, task=t) for i, t in cells if i[0] != 0 and i[1] != 0]
    other = [evidence(-h, -low, task=t) for (low, h), t in cells if low != 0 and h != 0]
    if items:
        verdict = verdict_of(items)
        assert verdict_of(other) == swap.get(verdict, verdict)


@given(STATED)
def test_laws_and_maps_never_move_a_verdict(cells: Any) -> None:
    items = [evidence(*i, task=t) for i, t in cells]
    law = a_prediction_model(name="q", kind="law", relation=">", bound=0.0)
    cell = a_prediction_model(name="r", kind="map")
    extra = [Evidence(p, Estimate(-1.0, -2.0, -0.5, 12)) for p in (law, cell)]
    assert verdict_of(items + extra) == verdict_of(items)


@given(INTERVALS, st.floats(0, 1))
def test_a_wider_interval_is_never_more_certain(interval: Any, more: float) -> None:
    low, high = interval
    narrow = evidence(low, high).outcome
    assert evidence(low - more, high + more).outcome in (narrow, "open")


def test_no_stated_evidence_is_refused() -> None:
    with pytest.raises(
        claims.EvidenceError,
        match=r"^a claim must have stated evidence; received none$",
    ):
        verdict_of([])


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (Estimate(math.nan, 0, 1, 12), "^evidence for p must be finite"),
        (Estimate(0.5, 0, math.inf, 12), "finite"),
        (Estimate(2.0, 0, 1, 12), "lie in its interval"),
        (Estimate(0.5, 0.5, 0.5, 12), "width"),
        (Estimate(0.5, 0, 1, 7), "at least 8 replicas"),
        (Estimate(0.5, 0, 1, 0, exact=True), "at least 1"),
    ],
)
def test_bad_evidence_is_refused(measured: Estimate, message: str) -> None:
    with pytest.raises(claims.EvidenceError, match=message):
        make_evidence(stated(), measured, "book")


def test_quick_tier_takes_four_replicas_and_exact_takes_one() -> None:
    assert make_evidence(stated(), Estimate(0.5, 0, 1, 4), "quick").outcome == "open"
    with pytest.raises(claims.EvidenceError, match="at least 4"):
        make_evidence(stated(), Estimate(0.5, 0, 1, 3), "quick")
    exact = Estimate(0.5, 0.5, 0.5, 1, exact=True)
    found = make_evidence(stated(), exact, "book")
    assert (found.outcome, found.measured) == ("met", exact)


# ---------------------------------------------------------------- the registry


def a_prediction(name: str, **changes: Any) -> dict[str, Any]:
    base = {
        "name": name,
        "kind": "stated",
        "quantity": "a difference",
        "reason": "a tenth would matter",
        "relation": ">",
        "bound": 0.1,
        "levels": {"task": "rows"},
    }
    return base | changes


def a_claim(claim_id: str, **changes: Any) -> dict[str, Any]:
    source = {"text": "chapter", "heading": "H", "sentence": 1, "quote": "two words"}
    base = {
        "id": claim_id,
        "source": source,
        "says": "It is so.",
        "falsifier": "It is not so.",
        "settings": "as usual",
        "factors": FACTORS,
        "expected": "holds",
        "finding": "It is {gain:.2f}.",
        "controls": {"identity": {"verdict": "fails", "leaves": "toy.other"}},
        "predictions": [
            a_prediction("gain"),
            a_prediction("law-1", kind="law", levels={}),
        ],
    }
    return base | changes


def a_study() -> dict[str, Any]:
    other = a_claim(
        "toy.other", controls={"reverse": {"verdict": "fails", "leaves": "toy.main"}}
    )
    return {
        "study": "toy",
        "title": "A toy",
        "question": "Is it so?",
        "data": ["synthetic"],
        "prerequisites": ["none"],
        "ordinary": {"norm": "layer", "eps": 1e-5},
        "controls": {"identity": "no norm", "reverse": "the other way"},
        "claims": [a_claim("toy.main"), other],
    }


def write(folder: Path, raw: dict[str, Any], name: str = "toy") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return folder


def test_registry_is_read(tmp_path: Path) -> None:
    record = registry.load_registry(write(tmp_path, a_study()))["toy"]
    assert [c.id for c in record.claims] == ["toy.main", "toy.other"]
    assert record.touched("identity") == {"toy.main", "toy.other"}
    assert record.claim("toy.main").prediction("gain").bound == 0.1


def test_a_claim_may_come_from_a_paper(tmp_path: Path) -> None:
    raw = a_study()
    raw["claims"][0]["source"] = {"cite": "a2020b", "place": "Section 2"}
    record = registry.load_registry(write(tmp_path, raw))["toy"]
    assert record.claim("toy.main").source == registry.Paper(
        cite="a2020b", place="Section 2"
    )
    assert isinstance(record.claim("toy.other").source, registry.Source)


def damage(path: str, value: Any) -> Any:
    """Return a function that sets (or with `...` deletes) `path` in a raw study."""

    def apply(raw: dict[str, Any]) -> None:
        *steps, last = (int(p) if p.isdigit() else p for p in path.split("/"))
        for step in steps:
            raw = raw[step]  # type: ignore[index]
        if value is ...:
            del raw[last]  # type: ignore[arg-type]
        else:
            raw[last] = value  # type: ignore[index]

    return apply


FIRST = "claims/0/predictions/0"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("question", ..., "question: Field required"),
        ("extra", 1, "extra: Extra inputs"),
        ("study", "other", "study must be toy"),
        ("claims/0/expected", "maybe", "claims/0/expected: Input should be"),
        ("claims/0/source", ..., "source: Field required"),
        ("claims/0/source/text", "novel", "source/sentence/text: Input should be"),
        ("claims/0/source", {"heading": "H"}, "either a sentence .* or a paper"),
        ("claims/0/source/cite", "a2020b", "either a sentence .* or a paper"),
        ("claims/0/source", {"cite": "a2020b"}, "source/paper/place: Field required"),
        (
            "claims/0/source",
            {"cite": "A, 2020", "place": "Section 2"},
            "source/paper/cite: String should match",
        ),
        (
            "claims/0/source",
            {"cite": "a2020b", "place": "Section 2", "quote": "two words"},
            "source/paper/quote: Extra inputs",
        ),
        ("claims/0/source/quote", "a b c d e f g h i", "at most eight words, has 9"),
        (
            "claims/0/controls",
            {},
            "claims/0/controls: Dictionary should",
        ),
        ("claims/0/controls/identity/verdict", "holds", "away from holds"),
        (
            "claims/0/controls/identity/verdict",
            "undecided",
            "identity/verdict: Input should be",
        ),
        ("claims/0/controls/identity/leaves", "toy.main", "leave another claim"),
        ("claims/0/controls/identity/leaves", "toy.none", "leave another claim"),
        (
            "claims/1/controls/identity",
            {"verdict": "fails", "leaves": "toy.main"},
            "also moves",
        ),
        ("controls/spare", "unused", "control spare must move a claim"),
        ("controls/identity", ..., "control identity must be declared"),
        ("claims/0/finding", "It is {gian:.2f}.", "it names gian"),
        ("claims/0/finding", "It is 3.", "it names none"),
        ("claims/1/id", "toy.main", "unique"),
        (f"{FIRST}/kind", "law", "at least one stated"),
        (f"{FIRST}/kind", "wish", "kind: Input should be"),
        (f"{FIRST}/relation", "~", "relation: Input should be"),
        (f"{FIRST}/bound", "small", "bound"),
        (f"{FIRST}/relation", ..., "must have a relation"),
        (f"{FIRST}/bound", [0, 1], "one number"),
        (f"{FIRST}/bound", math.nan, "finite"),
        (f"{FIRST}/levels", {"task": "columns"}, "must be declared in factors"),
        (f"{FIRST}/name", "law-1", "names must be unique"),
        (f"{FIRST}/name", "Gain.x", "name: String should match"),
    ],
)
def test_a_damaged_registry_is_refused(
    tmp_path: Path, path: str, value: Any, message: str
) -> None:
    raw = copy.deepcopy(a_study())
    damage(path, value)(raw)
    with pytest.raises(registry.RegistryError, match=message):
        registry.load_registry(write(tmp_path, raw))


def test_within_must_rise(tmp_path: Path) -> None:
    raw = a_study()
    raw["claims"][0]["predictions"][0] |= {"relation": "within", "bound": [1, 0]}
    with pytest.raises(registry.RegistryError, match="must rise"):
        registry.load_registry(write(tmp_path, raw))


def test_two_studies_may_not_share_a_claim(tmp_path: Path) -> None:
    write(tmp_path, a_study() | {"study": "boy"}, "boy")
    with pytest.raises(registry.RegistryError, match=r"toy\.main stands in boy"):
        registry.load_registry(write(tmp_path, a_study()))


def test_unknown_study_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean 'toy'"):
        registry.load_study("toys", write(tmp_path, a_study()))


# ---------------------------------------------------------------- a study


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LNLIB_REGISTRY", str(write(tmp_path, a_study())))
    return tmp_path


GOOD = Estimate(1.0, 0.5, 1.5, 12)
BAD = Estimate(-1.0, -1.5, -0.5, 12)


def run(gains: dict[str, Estimate], laws: Estimate = GOOD, **kw: Any) -> claims.Study:
    study = claims.Study("toy", **{"tier": "book", **kw})
    norm = {"identity": "none", "reverse": "reverse"}.get(study.control, "layer")
    study.uses(norm=norm, eps=1e-5)
    for claim, gain in gains.items():
        study.record(claim, "gain", gain)
        study.record(claim, "law-1", laws)
        study.judge(claim)
    return study


BOTH = {"toy.main": GOOD, "toy.other": GOOD}


def test_a_good_study_closes(folder: Path, capsys: Any) -> None:
    run(BOTH).close()
    assert "toy.main: holds (expected: holds)" in capsys.readouterr().out


def test_all_that_is_wrong_is_listed(folder: Path) -> None:
    with pytest.raises(claims.StudyError) as error:
        run({"toy.main": BAD}, BAD).close()
    assert str(error.value) == (
        "toy does not stand:\n"
        "- law toy.main/law-1 is missed: -1 [-1.5, -0.5], must be > 0.1\n"
        "- toy.main is fails, the registry expects holds\n"
        "- toy.other was not judged"
    )


@pytest.mark.parametrize(
    ("gains", "laws", "message"),
    [
        (BOTH, BAD, "law toy.main/law-1 is missed"),
        (BOTH, Estimate(0.1, 0.0, 0.5, 12), "law toy.main/law-1 is open"),
        ({"toy.main": GOOD}, GOOD, r"toy\.other was not judged"),
        (BOTH | {"toy.main": BAD}, GOOD, r"toy\.main is fails, the registry expects"),
    ],
)
def test_a_bad_study_does_not_close(
    folder: Path, gains: Any, laws: Estimate, message: str
) -> None:
    with pytest.raises(claims.StudyError, match=message):
        run(gains, laws).close()


def test_under_a_control_laws_and_verdicts_do_not_raise(folder: Path) -> None:
    run(BOTH | {"toy.main": BAD}, BAD, control="identity").close()


def test_a_finding_needs_all_it_shows(folder: Path, capsys: Any) -> None:
    raw = a_study()
    raw["claims"][1]["finding"] = "It is {gain:.2f} and {law-1:.2f}."
    write(folder, raw)
    study = run({"toy.main": BAD}, control="identity")
    with pytest.raises(claims.EvidenceError, match=r"are measured: gain$"):
        study.judge("toy.other")
    study.record("toy.other", "gain", GOOD)
    assert study.judge("toy.other") == "holds"
    study.close()


def test_from_tier_book_on_every_prediction_is_measured(folder: Path) -> None:
    raw = a_study()
    cell = a_prediction("cell", kind="map", relation=None, bound=None)
    raw["claims"][0]["predictions"].append(cell)
    write(folder, raw)
    message = "toy.main/cell is registered and was not measured"
    for tier in ("book", "full"):
        with pytest.raises(claims.StudyError, match=message):
            run(BOTH, tier=tier).close()
    run(BOTH, tier="quick").close()
    run(BOTH | {"toy.main": BAD}, control="identity").close()


def test_under_a_control_every_touched_claim_is_judged(folder: Path) -> None:
    with pytest.raises(claims.StudyError, match=r"toy\.other was not judged under"):
        run({"toy.main": BAD}, control="identity").close()


def test_an_ignored_control_is_refused(folder: Path) -> None:
    study = claims.Study("toy", control="identity")
    with pytest.raises(ValueError, match="exactly one setting; it changed none"):
        study.uses(norm="layer", eps=1e-5)
    with pytest.raises(ValueError, match="exactly one setting"):
        study.uses(norm="none", eps=1.0)
    with pytest.raises(ValueError, match="settings of toy must be"):
        study.uses(norm="none")


def test_a_changed_setting_is_an_exploration(folder: Path, capsys: Any) -> None:
    study = claims.Study("toy")
    study.uses(norm="layer", eps=1.0)
    study.record("toy.main", "gain", BAD)
    study.record("toy.main", "law-1", BAD)
    assert study.judge("toy.main") == "fails"
    study.close()
    assert "fails (expected: holds)" in capsys.readouterr().out


def test_settings_must_be_declared(folder: Path) -> None:
    with pytest.raises(claims.StudyError, match=r"Study\.uses"):
        claims.Study("toy").close()


def test_evidence_is_owed_and_final(folder: Path) -> None:
    study = claims.Study("toy")
    with pytest.raises(claims.EvidenceError, match="gain, law-1"):
        study.judge("toy.main")
    with pytest.raises(ValueError, match="Did you mean 'gain'"):
        study.record("toy.main", "gains", GOOD)
    done = run(BOTH)
    with pytest.raises(claims.EvidenceError, match="judged already"):
        done.record("toy.main", "gain", BAD)


@pytest.mark.parametrize("again", [GOOD, BAD])
def test_a_prediction_is_recorded_once(folder: Path, again: Estimate) -> None:
    study = claims.Study("toy")
    study.record("toy.main", "gain", GOOD)
    told = (
        r"^toy\.main/gain must be recorded once; received Est.* after Estimate.*\. "
        r"To measure again, run the notebook from its first cell\.$"
    )
    with pytest.raises(claims.EvidenceError, match=told):
        study.record("toy.main", "gain", again)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("tier", "quik", "^tier must be .* Did you mean 'quick'"),
        ("control", "identty", "^control must be .* Did you mean 'identity'"),
        ("device", "gpu", "^device must be one of cpu, cuda"),
        ("seed", -1, "whole number"),
        ("seed", "0", "whole number"),
        ("seed", True, "whole number"),
        ("seed", 10_000, "from 0 to 9999; received 10000"),
    ],
)
def test_bad_parameters(folder: Path, parameter: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        claims.Study("toy", **{parameter: value})


def test_a_study_opens_at_the_default_parameters(folder: Path) -> None:
    study = claims.Study("toy")
    found = (study.tier, study.seed, study.control, study.device, study.exploring)
    assert found == ("book", 0, "none", "cpu", False)
    assert claims.Study("toy", seed=claims.MAX_SEED).seed == 9_999


def test_a_setting_by_tier(folder: Path) -> None:
    for tier, value in (("quick", 1), ("book", 2), ("full", 3)):
        assert claims.Study("toy", tier=tier).choose(quick=1, book=2, full=3) == value


def test_needs(folder: Path) -> None:
    raw = a_study()
    third = {"identity": {"verdict": "fails", "leaves": "toy.other"}}
    raw["claims"].append(a_claim("toy.third", controls=third))
    write(folder, raw)
    assert claims.Study("toy").needs("toy.third")
    assert claims.Study("toy", control="identity").needs("toy.third")
    assert not claims.Study("toy", control="reverse").needs("toy.third")
    with pytest.raises(ValueError, match="claim of toy"):
        claims.Study("toy").needs("toy.thrid")


def test_a_claim_for_book_tier_is_not_judged_at_quick(folder: Path) -> None:
    raw = a_study()
    raw["claims"][0]["tier"] = "book"
    write(folder, raw)
    study = run(BOTH | {"toy.main": BAD}, tier="quick")
    study.close()
    with pytest.raises(claims.StudyError, match="is fails"):
        run(BOTH | {"toy.main": BAD}, tier="book").close()


# ---------------------------------------------------------------- stored verdicts


@pytest.fixture
def bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(claims, "display", lambda data, raw: shown.append(data))
    run(BOTH).close()
    assert "It is 1.00." in shown[0]["text/html"]
    stored: dict[str, Any] = json.loads(json.dumps(shown[0][claims.VERDICT_MIME]))
    return stored


def test_a_stored_verdict_is_judged_again(folder: Path, bundle: dict[str, Any]) -> None:
    record = registry.load_study("toy")
    claims.check_bundle(bundle, record, "book")
    stored = r"^toy\.main: stored evidence gain must be {'name.*; the result says {'n"
    for path, value, told in [
        ("verdict", "fails", "makes the verdict holds; the result says fails$"),
        ("evidence/0/outcome", "missed", stored),
        ("evidence/0/low", -3.0, stored),
        ("evidence/0/bound", 0.2, stored),
        ("evidence/0/kind", "law", stored),
        ("evidence/0/n", 3, "at least 8 replicas"),
    ]:
        edited = copy.deepcopy(bundle)
        damage(path, value)(edited)
        with pytest.raises(claims.EvidenceError, match=told):
            claims.check_bundle(edited, record, "book")
    told = "has none, and lacks gain, law-1$"
    with pytest.raises(claims.EvidenceError, match=told):
        claims.check_bundle(bundle | {"evidence": []}, record, "book")


def test_removed_evidence_is_missed(folder: Path, bundle: dict[str, Any]) -> None:
    """Without its unwelcome half the rest of the evidence would say something else."""
    raw = a_study()
    raw["claims"][0]["predictions"].append(a_prediction("more"))
    record = registry.load_study("toy", write(folder, raw))
    item = bundle["evidence"][0]
    bundle["evidence"].append(item | {"name": "more"})
    claims.check_bundle(bundle, record, "book")
    for index, name in enumerate(("gain", "law-1", "more")):
        edited = copy.deepcopy(bundle)
        del edited["evidence"][index]
        with pytest.raises(claims.EvidenceError, match=f"lacks {name}"):
            claims.check_bundle(edited, record, "book")
        if name == "law-1":
            claims.check_bundle(edited, record, "book", "identity")
    bundle["evidence"].append(item)
    told = "once; the result has gain, law-1, more, gain, and lacks none$"
    with pytest.raises(claims.EvidenceError, match=told):
        claims.check_bundle(bundle, record, "book")


def test_finding_formats(folder: Path) -> None:
    item = make_evidence(stated(), GOOD, "book")
    text = f"{item:.1f} {item:±.2f} {item.low:.1f} {item.high:.1f} {item.n}"
    assert text == "1.0 1.00 [0.50, 1.50] 0.5 1.5 12"
    assert f"{item.estimate:.1f}" == "1.0"
    with pytest.raises(AttributeError, match=r"^mean$"):
        _ = f"{item.mean}"


def test_evidence_as_it_is_stored() -> None:
    found = make_evidence(stated("within", (0.0, 2.0)), GOOD, "book").as_dict()
    assert found == {
        "name": "p",
        "kind": "stated",
        "estimate": 1.0,
        "low": 0.5,
        "high": 1.5,
        "n": 12,
        "exact": False,
        "relation": "within",
        "bound": [0.0, 2.0],
        "outcome": "met",
    }


def test_a_zero_has_no_exponent_and_no_sign_in_a_finding() -> None:
    zero = make_evidence(stated(bound=0.0), Estimate(0.0, 0.0, 2e-9, 12), "book")
    assert f"{zero:.0e}" == "0"
    assert f"{zero:±.0e}" == "0 [0, 2e-09]"
    assert f"{zero:.2f}" == "0.00"
    small = make_evidence(stated(bound=0.0), Estimate(-0.001, -0.01, 0.2, 12), "book")
    assert f"{small:.2f}" == "0.00"
    assert f"{small:±.2f}" == "0.00 [-0.01, 0.20]"
    assert f"{evidence(-0.0204, -0.0200):.2f}" == "-0.02"


# ---------------------------------------------------------------- display


Shown = list[dict[str, Any]]


@pytest.fixture
def shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What a notebook is given to display: one bundle for each call, as it stands."""
    found: Shown = []

    def display(data: dict[str, Any], *, raw: bool) -> None:
        assert raw is True
        found.append(data)

    monkeypatch.setattr(claims, "display", display)
    return found


def cells(page: str, table: str = "table") -> list[list[str]]:
    """Return the texts of a table's cells, by row."""
    rows = BeautifulSoup(page, "html.parser").select(f"{table} tr")
    return [[cell.text for cell in row.select("th, td")] for row in rows]


def scrolls(page: str, label: str) -> bool:
    """Say whether the table can be reached and scrolled by the keyboard."""
    box = f'div.lnlib-scroll[tabindex="0"][role="region"][aria-label="{label}"] > table'
    return len(BeautifulSoup(page, "html.parser").select(box)) == 1


@pytest.mark.parametrize(
    ("verdict", "sign"),
    [
        ("holds", "✓"),
        ("fails", "✗"),
        ("conditional", "◐"),
        ("undecided", "?"),
        ("not judged", "–"),
    ],
)
def test_a_badge_has_a_glyph_and_a_word(verdict: str, sign: str) -> None:
    badge = BeautifulSoup(claims.badge(verdict), "html.parser").span
    assert badge is not None
    assert (badge.text, badge["data-verdict"]) == (f"{sign} {verdict}", verdict)
    glyph = badge.select_one('span[aria-hidden="true"]')
    assert glyph is not None
    assert glyph.text == sign


def test_the_evidence_as_a_table() -> None:
    law = a_prediction_model(name="q", kind="law", relation="within", bound=(-1, 2e4))
    cell = a_prediction_model(name="r", kind="map", quantity="a < b")
    page = claims.evidence_html(
        [
            Evidence(stated(">", 1e4), Estimate(9999.0, -1e4, 12345.0, 12)),
            Evidence(law, Estimate(0.0, -0.12345, 1.0, 3, exact=True)),
            Evidence(cell, Estimate(1.0, 0.5, 1.5, 4)),
        ]
    )
    assert cells(page, "table.lnlib-evidence") == [
        ["kind", "quantity", "measured [interval]", "n", "predicted", "outcome"],
        [
            *("stated", "a number", "1e+04 [-1.00e+04, 1.23e+04]", "n = 12"),
            *("> 1.00e+04", "open"),
        ],
        [
            *("law", "a number", "0 [-0.123, 1]", "exact"),
            *("within [-1, 2.00e+04]", "met"),
        ],
        ["map", "a < b", "1 [0.5, 1.5]", "n = 4", "shown, not judged", "shown"],
    ]
    soup = BeautifulSoup(page, "html.parser")
    rows = soup.select("tbody > tr")
    assert [row["data-outcome"] for row in rows] == ["open", "met", "shown"]
    assert len(soup.select('thead th[scope="col"]')) == 6
    assert scrolls(page, "Evidence table")
    assert soup.text == "".join(map("".join, cells(page)))  # nothing beside the cells


def test_a_verdict_tells_its_finding_or_why_there_is_none(shown: Shown) -> None:
    raw = a_study()
    raw["claims"][0] |= {"tier": "book", "says": "a < b"}
    raw["claims"][1]["finding"] = "It is {gain:.2f} and {law-1:.2f}."
    write(Path(os.environ["LNLIB_REGISTRY"]), raw)
    run({"toy.main": GOOD}, tier="quick")
    run({"toy.main": GOOD})
    run({"toy.main": BAD})
    run({"toy.other": GOOD})
    study = run({}, control="identity")
    study.record("toy.other", "gain", GOOD)
    study.judge("toy.other")
    parts = [BeautifulSoup(one["text/html"], "html.parser").div for one in shown]
    assert [[p.text for p in part.select("p")] for part in parts if part] == [
        [
            "– not judged toy.main",
            "a < b",
            "Measured here; judged at tier book and above.",
        ],
        ["✓ holds toy.main", "a < b", "It is 1.00."],
        [
            "✗ fails toy.main",
            "a < b",
            "The registry expects ✓ holds; its finding does not apply to this run.",
        ],
        ["✓ holds toy.other", "It is so.", "It is 1.00 and 1.00."],
        [
            "✓ holds toy.other",
            "It is so.",
            "The finding needs measurements that this run skipped.",
        ],
    ]
    for part, one in zip(parts, shown, strict=True):
        assert part is not None
        stored = one[claims.VERDICT_MIME]
        assert part["class"] == ["lnlib-verdict"]
        assert (part["data-claim"], part["data-verdict"]) == (
            stored["claim"],
            stored["verdict"],
        )
        assert part.select_one("details > summary").text == "Evidence"  # type: ignore[union-attr]
        assert one["text/plain"] == (
            f"{stored['claim']}: {stored['verdict']} (expected: holds)"
        )
        assert part.find_all(string=True, recursive=False) == []


def test_a_closed_study_says_how_it_was_run(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "commit", lambda: "abc<")
    monkeypatch.setattr(claims, "versions", lambda: {"python": "3", "torch": "2"})
    starts = SimpleNamespace(perf_counter=lambda: 10.0, process_time=lambda: 5.0)
    monkeypatch.setattr(claims, "time", starts)
    monkeypatch.setattr(claims, "CLOCKS", (lambda: 22.34, lambda: 8.86))
    study = claims.Study("toy", seed=3)
    study.uses(norm="layer", eps=1.0)
    study.record("toy.main", "gain", BAD)
    study.record("toy.main", "law-1", BAD)
    study.judge("toy.main")
    study.close()
    assert set(shown[-1]) == {claims.RUN_MIME, "text/html", "text/plain"}
    assert shown[-1]["text/plain"] == "toy: closed"
    assert shown[-1][claims.RUN_MIME] == {
        "study": "toy",
        "tier": "book",
        "seed": 3,
        "control": "none",
        "device": "cpu",
        "exploring": True,
        "settings": {"norm": "layer", "eps": 1.0},
        "verdicts": {"toy.main": "fails"},
        "expected": {"toy.main": "holds", "toy.other": "holds"},
        "versions": {"python": "3", "torch": "2"},
        "commit": "abc<",
        "wall_seconds": 12.3,
        "cpu_seconds": 3.9,
    }
    page = shown[-1]["text/html"]
    assert cells(page) == [
        ["claim", "verdict", "expected"],
        ["toy.main", "✗ fails", "✓ holds"],
        ["toy.other", "– not run", "✓ holds"],
    ]
    assert scrolls(page, "Verdicts of this study")
    box = BeautifulSoup(page, "html.parser").div
    assert box is not None
    told = [p.text for p in box.select("p")]
    assert box.text == "".join([told[0], *map("".join, cells(page)), told[1]])
    assert box["class"] == ["lnlib-run"]
    assert [p.text for p in box.select("p")] == [
        "Settings were changed: an exploration.",
        "Tier book, seed 3, control none, cpu, 3.9 s of processor time; "
        "python 3, torch 2; commit abc<.",
    ]
    assert box.find_all(string=True, recursive=False) == []
    assert len(box.select('thead th[scope="col"]')) == 3
    ordinary = claims.run_html(shown[-1][claims.RUN_MIME] | {"exploring": False})
    assert "exploration" not in ordinary
    assert BeautifulSoup(ordinary, "html.parser").div.contents[0].name == "div"  # type: ignore[union-attr]


def test_a_number_that_json_lacks_is_never_stored() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        claims._show(claims.RUN_MIME, {"seconds": math.nan}, "", "")


def test_the_versions_are_those_a_result_may_depend_on() -> None:
    found = claims.versions()
    libraries = {"torch", "numpy", "scipy", "scikit-learn", "matplotlib"}
    assert set(found) == {"python"} | libraries
    assert found["python"] == platform.python_version()
    assert found["torch"] == metadata.version("torch")


def test_the_commit_is_that_of_the_working_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        done = subprocess.run(
            ["git", *identity, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert claims.commit() == "unknown"  # no repository
    git("init", "-q")
    Path("file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "one")
    git("tag", "-am", "a tag", "v1")
    head = git("rev-parse", "--short", "HEAD")
    assert claims.commit() == head
    Path("file").write_text("two")
    assert claims.commit() == f"{head}+"
    monkeypatch.setenv("PATH", "")
    assert claims.commit() == "unknown"  # no git
