"""Every notebook at quick tier and under each control; and what a notebook must be.

A control that moves a claim of tier book runs at that tier: quick does not judge it.

Fresh results below `_build/test` are used again.  A damaged one fails its case and is
discarded, so that the next call executes the notebook.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from studies import OPEN, add_study, edit, guarded, make_project, registry

from lnlib.claims import NOT_JUDGED
from lnlib.registry import Claim, StudyRecord, Verdict
from lnlib.results import (
    DEFAULTS,
    Job,
    Project,
    Result,
    code_cells,
    read_notebook,
    read_result,
    result_path,
    status,
)
from lnlib.runner import execute, expected_seconds, plan


def moved_by(control: str, record: StudyRecord) -> list[Claim]:
    """Return the claims that a control must move."""
    return [claim for claim in record.claims if control in claim.controls]


def at_its_tier(job: Job, record: StudyRecord) -> Job:
    """Return the job at the tier that judges every claim which its control moves."""
    later = any(claim.tier == "book" for claim in moved_by(job.control, record))
    return replace(job, tier="book") if later else job


PROJECT = Project(output=Project().root / "_build" / "test" / "results")
STUDIES = PROJECT.studies()
RECORDS = {name: PROJECT.record(name) for name in STUDIES}
NOTEBOOKS = {name: read_notebook(PROJECT.notebook(name)) for name in STUDIES}
JOBS = sorted(
    (
        at_its_tier(job, RECORDS[job.study])
        for job in plan(PROJECT, tier="quick", control="all")
    ),
    key=lambda job: (-expected_seconds(job, PROJECT), job.name),
)
PAGES = sorted((PROJECT.root / "book").rglob("*.md"))
each_study = pytest.mark.parametrize("study", STUDIES)


# ------------------------------------------------------------- runs


@pytest.fixture(autouse=True, scope="module")
def guard() -> Iterator[None]:
    """Guard the kernel of every study."""
    with guarded():
        yield


def up_to_date(job: Job, project: Project) -> Result:
    """Return the result of a job, executed if need be; fail if it does not stand."""
    path = result_path(job, project)
    state = status(job, project)
    if state.startswith("damaged"):
        path.unlink()
        pytest.fail(f"{state}; discarded: the next call executes {job} again")
    outcome = execute(job, project)
    assert outcome.error is None, outcome.error
    return read_result(path, project)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.study}-{job.control}")
def test_study(job: Job) -> None:
    check(up_to_date(job, PROJECT).verdicts, job, RECORDS[job.study])


def check(verdicts: Mapping[str, str], job: Job, record: StudyRecord) -> None:
    """Compare the verdicts of a job with those that the registry asks for."""
    wanted = {claim.id: claim.expected for claim in record.claims}
    if job.control != "none":
        moved = moved_by(job.control, record)
        left = [claim.controls[job.control].leaves for claim in moved]
        wanted = {name: wanted[name] for name in left}
        wanted |= {claim.id: claim.controls[job.control].verdict for claim in moved}
    for claim_id, verdict in wanted.items():
        later = record.claim(claim_id).tier == "book" and job.tier == "quick"
        assert verdicts[claim_id] == (NOT_JUDGED if later else verdict)
    if job.control == "none":
        assert verdicts.keys() == wanted.keys()


def test_a_control_of_a_later_claim_runs_at_its_tier() -> None:
    raw = registry("one")
    raw["claims"][0]["tier"] = "book"
    record = StudyRecord.model_validate(raw)
    jobs = [Job("one", "quick", control=c) for c in ("none", "shifted", "narrow")]
    cases = [at_its_tier(job, record) for job in jobs]
    assert [job.tier for job in cases] == ["quick", "book", "quick"]
    moved = {"one.mean": "fails", "one.spread": "fails"}
    check(moved, cases[1], record)
    with pytest.raises(AssertionError):
        check(moved | {"one.mean": "holds"}, cases[1], record)
    with pytest.raises(AssertionError):
        check(moved | {"one.mean": NOT_JUDGED}, cases[1], record)


def test_every_move_of_a_later_claim_is_a_case() -> None:
    for record in RECORDS.values():
        for claim in record.claims:
            for control in claim.controls if claim.tier == "book" else ():
                assert Job(record.study, "book", control=control) in JOBS


def test_a_damaged_result_fails_once(tmp_path: Path) -> None:
    project, job = make_project(tmp_path / "project"), Job("one", "quick")
    add_study(project, "one")
    up_to_date(job, project)
    edit(result_path(job, project), "holds", "fails")
    with pytest.raises(pytest.fail.Exception, match=r"damaged: .*one\.ipynb .* again"):
        up_to_date(job, project)
    assert up_to_date(job, project).verdicts["one.mean"] == "holds"


def test_an_idle_control_fails(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    add_study(project, "one", open=OPEN.replace("1.0 if", "0.0 if"))
    with pytest.raises(AssertionError, match="must change exactly one setting"):
        up_to_date(Job("one", "quick", control="shifted"), project)


@pytest.mark.parametrize(
    ("work", "said"),
    [
        ("import urllib.request as u; u.urlopen('http://192.0.2.1')", "network; 1"),
        ("import urllib.request as u; u.urlopen('http://a.example')", "network; a"),
        ("import socket; socket.create_connection(('192.0.2.1', 9))", "network; 1"),
        ("import pickle; pickle.loads(pickle.dumps(print))", "must not unpickle; b"),
    ],
)
def test_a_study_that_leaves_this_machine_or_unpickles_fails(
    tmp_path: Path, work: str, said: str
) -> None:
    project = make_project(tmp_path / "project")
    add_study(project, "one", work=work)
    with pytest.raises(AssertionError, match=said):
        up_to_date(Job("one", "quick"), project)


# ------------------------------------------------------------- the form of a notebook


@each_study
def test_parameters(study: str) -> None:
    first = code_cells(NOTEBOOKS[study])[0]
    assert first.metadata.get("tags") == ["parameters"]
    lines = [f"{name} = {value!r}" for name, value in DEFAULTS.items()]
    assert ast.unparse(ast.parse(first.source)) == "\n".join(lines)


@each_study
def test_stored_without_outputs(study: str) -> None:
    for cell in code_cells(NOTEBOOKS[study]):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert "lnlib" not in NOTEBOOKS[study].metadata
    assert "papermill" not in NOTEBOOKS[study].metadata


@each_study
def test_cells_are_short_and_have_names(study: str) -> None:
    cells = NOTEBOOKS[study].cells
    names = [cell.id for cell in cells]
    assert len(set(names)) == len(names)
    for cell in code_cells(NOTEBOOKS[study]):
        lines = cell.source.splitlines()
        assert len(lines) <= 27, f"cell {cell.id} has {len(lines)} lines, at most 27"
        longest = max(lines, key=len)
        assert len(longest) <= 72, f"cell {cell.id}: at most 72 columns: {longest}"


@each_study
def test_opens_with_title_and_closes(study: str) -> None:
    cells = NOTEBOOKS[study].cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith(f"# {RECORDS[study].title}\n")
    assert code_cells(NOTEBOOKS[study])[-1].source.strip() == "study.close()"


def names_in(study: str) -> set[str]:
    """Return the text constants in the code of a notebook."""
    code = "\n".join(cell.source for cell in code_cells(NOTEBOOKS[study]))
    found = {node.value for node in ast.walk(ast.parse(code)) if hasattr(node, "value")}
    return {value for value in found if isinstance(value, str)}


def test_each_claim_stands_in_one_notebook() -> None:
    names = {study: names_in(study) for study in STUDIES}
    for study, record in RECORDS.items():
        for claim in record.claims:
            found = [other for other in STUDIES if claim.id in names[other]]
            assert found == [study], f"{claim.id} must stand in {study} alone"


# ------------------------------------------------------------- nothing is typed in

VERDICT = rf"\b({'|'.join(get_args(Verdict))})\b"
CLAIM = r"\b[a-z0-9]+\.[a-z0-9]+(-[a-z0-9]+)*\b"
TYPED_VERDICT = [
    rf"\bverdict\b\W*(\bis\b|\bwas\b|\bof\b)?\W*{VERDICT}",
    rf"\b(the|this) (claim|sentence) (is )?\W*{VERDICT}",
    rf"`{CLAIM}`\W*(is )?\W*{VERDICT}",
]
NUMBER_WORDS = (
    "three|four|five|six|seven|eight|nine|ten|twelve|twenty|fifty|hundred|thousand|"
    r"million|half(?!-)|twice|thrice|doubles?|triples?|percent|\w+fold"
)


def typed_verdicts(text: str) -> list[str]:
    """Return what reads like a verdict on a claim in a text; code blocks are none."""
    text = re.sub(r"(?ms)^(```+)[^{].*?^\1", "", text)
    found = (re.finditer(rule, text, re.IGNORECASE) for rule in TYPED_VERDICT)
    return [match[0] for matches in found for match in matches]


def typed_numbers(finding: str) -> list[str]:
    """Return the numbers in a finding that no evidence fills in.

    A digit in a name (float32, l0) is no measurement, nor is a setting that is named
    in code or in a formula (`d = 64`).
    """
    text = re.sub(r"\{[^}]*\}", " ", finding)
    text = re.sub(r"([`$])[^`$]*[A-Za-z][^`$]*\1", " ", text)
    digits = re.findall(r"(?<![\w.])\d[\d.,]*(?:e-?\d+)?%?(?!\w)", text)
    return digits + re.findall(rf"\b(?:{NUMBER_WORDS})\b", text, re.IGNORECASE)


@pytest.mark.parametrize(
    "text",
    [
        "Verdict: **holds**.",
        "The verdict is *conditional*",
        "So the claim fails.",
        "This sentence holds at every width.",
        "`dropout.squared-mean` fails",
        "| `rnn.radius` | holds |",
    ],
)
def test_a_typed_verdict_is_found(text: str) -> None:
    assert typed_verdicts(text)
    assert typed_verdicts(f"```yaml\n{text}\n```\n") == []


@pytest.mark.parametrize(
    "finding",
    [
        "The gap is 0.31.",
        "The gap is {gap:.2f}, 95% of it.",
        "It falls by 1e-3.",
        "It doubles: 3 times {gap.n}.",
        "It is ten times {gap:.2f}.",
        "A tenfold rise from {gap:.2f}",
        "It is half as large as {gap:.2f}",
        "It is $0.31$ or `0.31`.",
    ],
)
def test_a_typed_number_is_found(finding: str) -> None:
    assert typed_numbers(finding)


def test_a_name_with_a_digit_is_no_number() -> None:
    names = "In float32 `weight_hh_l0` changes by {gap:.3f} at $d = 64$, layer l2"
    assert typed_numbers(names) == []


@each_study
def test_findings_have_no_typed_numbers(study: str) -> None:
    for claim in RECORDS[study].claims:
        assert typed_numbers(claim.finding) == [], claim.id
        assert typed_verdicts(claim.finding) == [], claim.id


@each_study
def test_notebooks_have_no_typed_verdict(study: str) -> None:
    for cell in NOTEBOOKS[study].cells:
        if cell.cell_type == "markdown":
            assert typed_verdicts(cell.source) == [], cell.id


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_have_no_typed_verdict(page: Path) -> None:
    assert typed_verdicts(page.read_text("utf-8")) == []
