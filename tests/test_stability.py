"""Verdicts over seeds: what counts, what does not, and what the pages say of it."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from studies import HERE, MEASURE, add_study, edit, make_project

from lnlib import __main__ as cli
from lnlib import results, runner, stability
from lnlib.claims import RUN_MIME, VERDICT_MIME
from lnlib.results import (
    DamagedResult,
    Job,
    Project,
    bundles,
    failed_path,
    read_notebook,
    read_result,
    result_path,
    standing,
    status,
)
from lnlib.stability import Stability, load, measure, parse_seeds, save, tell_seeds

pytestmark = pytest.mark.xdist_group("stability")  # four runs, once

# Another verdict at seed 1, a missed law at 2, no end at 3.
SHAKY = MEASURE.replace("exact(offset", "exact(float(seed == 1)").replace(
    "exact(4.0", "exact(2.0 if seed == 2 else 4.0"
)
SEEDS = (0, 1, 2, 3)
QUICK = [Job("one", "quick", seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose only study was run at four seeds; not to be changed."""
    project = make_project(tmp_path_factory.mktemp("ran") / "project")
    add_study(project, "one", work="assert seed != 3", measure=SHAKY)
    jobs = runner.plan(project, tier="quick", seeds=SEEDS)
    assert sorted(jobs, key=str) == QUICK
    errors = {o.job: o.error for o in runner.run(jobs, project, workers=1)}
    assert [bool(errors[job]) for job in QUICK] == [False, True, True, True]
    return project


@pytest.fixture
def project(ran: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it, which the commands of this process use."""
    shutil.copytree(ran.root, tmp_path / "copy")
    project = Project(tmp_path / "copy")
    monkeypatch.setattr(cli, "Project", functools.partial(Project, project.root))
    before = signal.getsignal(signal.SIGTERM)
    yield project
    signal.signal(signal.SIGTERM, before)


def counted(project: Project) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the seeds by claim and outcome."""
    return measure(project.record("one"), "quick", SEEDS, project)[0].claims


# ------------------------------------------------------------- seeds in words


@pytest.mark.parametrize(
    ("text", "seeds", "told"),
    [
        ("0:20", tuple(range(20)), "0:20"),
        ("7", (7,), "7"),
        ("3,7, 12", (3, 7, 12), "3,7,12"),
        ("5:7,0:3", (5, 6, 0, 1, 2), "0:3,5:7"),
        ("9999", (9999,), "9999"),
    ],
)
def test_seeds_in_words(text: str, seeds: tuple[int, ...], told: str) -> None:
    assert parse_seeds(text) == seeds
    assert tell_seeds(seeds) == told


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is neither"),
        ("0-20", "'0-20' is neither"),
        ("0:20:2", "'0:20:2' is neither"),
        ("1,,2", "'' is neither"),
        ("-1:3", "'-1:3' is neither"),
        ("²", "'²' is neither"),
        ("20:0", "'20:0' is empty"),
        ("5:5", "'5:5' is empty"),
        ("9999:10001", "10000 is too large"),
        ("0:4,2", "2 is named twice"),
    ],
)
def test_no_seeds(text: str, why: str) -> None:
    with pytest.raises(ValueError, match="such as 0:20 or 3,7,10:12; received") as told:
        parse_seeds(text)
    assert str(told.value).endswith(why)


# ------------------------------------------------------------- what counts


def test_every_outcome_is_counted(project: Project) -> None:
    found, lacking = measure(project.record("one"), "quick", SEEDS, project)
    mean, spread = project.record("one").claims
    assert found.claims == {
        "one.mean": {"holds": (0, 2), "fails": (1,)},
        "one.spread": {"fails": (0, 1), "law missed": (2,)},
    }
    assert (found.given(mean), found.given(spread)) == (2, 2)
    assert found.others(mean) == "fails at 1; no result at 3"
    assert found.others(spread) == "law missed at 2; no result at 3"
    assert not found.stable(mean)
    assert lacking == {"missing": [3]}
    assert len(found.commits) == 1


def test_a_failed_run_is_no_result(project: Project) -> None:
    job = QUICK[1]
    assert status(job, project).startswith("failed: cell close (study.close()): ")
    assert not result_path(job, project).exists()
    with pytest.raises(DamagedResult, match="must not be a run that failed"):
        read_result(failed_path(job, project), project)
    shutil.copy(failed_path(job, project), result_path(job, project))
    assert "must not be a run that failed" in status(job, project)
    assert counted(project)["one.mean"] == {"holds": (0, 2)}


def test_a_good_run_is_no_failure(project: Project) -> None:
    result_path(QUICK[0], project).rename(failed_path(QUICK[0], project))
    assert status(QUICK[0], project) == "missing"


def test_a_study_that_failed_is_not_run_again(project: Project) -> None:
    path = failed_path(QUICK[1], project)
    before = path.stat().st_mtime_ns
    error = str(runner.execute(QUICK[1], project).error)
    assert "one.mean is fails, the registry expects holds" in error
    assert error.endswith(f"Its traceback is in {path}; --force runs it again")
    assert path.stat().st_mtime_ns == before
    assert runner.execute(QUICK[1], project, force=True).error
    assert path.stat().st_mtime_ns > before


def test_a_study_that_stopped_is_run_again(project: Project) -> None:
    assert status(QUICK[3], project) == "missing"
    before = failed_path(QUICK[3], project).stat().st_mtime_ns
    assert "AssertionError" in str(runner.execute(QUICK[3], project).error)
    assert failed_path(QUICK[3], project).stat().st_mtime_ns > before


def swapped(notebook: Any) -> None:
    bundles(notebook, VERDICT_MIME)[0]["verdict"] = "holds"
    bundles(notebook, RUN_MIME)[0]["verdicts"]["one.mean"] = "holds"


def exploring(notebook: Any) -> None:
    bundles(notebook, RUN_MIME)[0]["exploring"] = True


def unclosed(notebook: Any) -> None:
    notebook.cells[-1].outputs.clear()


@pytest.mark.parametrize("change", [swapped, exploring, unclosed])
def test_a_failed_run_that_was_edited_does_not_count(
    project: Project, change: Any
) -> None:
    path = failed_path(QUICK[1], project)
    notebook = read_notebook(path)
    change(notebook)
    nbformat.write(notebook, path)
    assert status(QUICK[1], project) == "missing"
    results.seal(path, notebook.metadata.lnlib)  # and by somebody who mends the seal
    assert counted(project)["one.mean"] == {"holds": (0, 2)}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("lnlib/stats.py", '"""', '"""New. '),
        ("lnlib/registry/one.yml", "bound: 0.5", "bound: 0.6"),
        ("notebooks/one.ipynb", "seed == 2", "seed == 5"),
    ],
)
def test_a_failed_run_of_other_inputs_does_not_count(
    project: Project, file: str, old: str, new: str
) -> None:
    before = stability.digest("one", "quick", project)
    edit(project.root / file, old, new)
    assert counted(project) == {"one.mean": {}, "one.spread": {}}
    assert status(QUICK[1], project) == "missing"
    assert stability.digest("one", "quick", project) != before


def test_another_seed_s_failure_does_not_count(project: Project) -> None:
    shutil.copy(failed_path(QUICK[1], project), failed_path(QUICK[3], project))
    assert standing(QUICK[3], project) == ("missing", None)


def test_a_claim_of_a_higher_tier_counts_by_its_laws(project: Project) -> None:
    mean, spread = (
        c.model_copy(update={"tier": "book"}) for c in project.record("one").claims
    )
    outcomes = {"not judged": (0, 1)}
    found = Stability(
        tier="quick",
        seeds=(0, 1),
        inputs="",
        commits=(),
        claims={mean.id: outcomes, spread.id: {"not judged": (0,), "law open": (1,)}},
    )
    assert not found.counts(mean)
    assert found.counts(spread)
    assert found.others(spread) == "law open at 1"


# ------------------------------------------------------------- the commands


def test_the_table_and_its_file(
    project: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "stability.json"
    words = ["verdicts", "--tier", "quick", "--seeds", "0:4", "--json", str(file)]
    assert cli.main(words) == 1
    told = capsys.readouterr().out
    assert "2 of 4" in told
    assert "fails at 1; no result at 3" in told
    assert "one (quick) has no result at seeds 3: missing" in told
    assert "run: python -m lnlib run one --tier quick --seeds 3" in told
    assert (
        load(file)["one"] == measure(project.record("one"), "quick", SEEDS, project)[:1]
    )

    assert cli.main([*words[:4], "0:3"]) == 0, "an unexpected verdict is a result"
    capsys.readouterr()
    assert cli.main([*words[:4], "0"]) == 0
    assert "1 of 1" in capsys.readouterr().out


def test_unstable_claims_come_first(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verdicts", "--tier", "quick", "--seeds", "0,2"]) == 0
    told = capsys.readouterr().out
    assert told.index("one.spread") < told.index("one.mean")


def test_a_run_over_seeds_is_resumed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", "--tier", "quick", "--seeds", "0:4", "--jobs", "1"]
    assert cli.main(run) == 1
    told = capsys.readouterr().out
    assert "one--seed3 (quick): missing\n" in told
    assert "FAILED one--seed1 (quick): cell close" in told
    assert "1 run, 3 fresh, 3 failed" in told


# ------------------------------------------------------------- the file


def made_up(
    inputs: str = "0", tier: str = "quick", **claims: dict[str, tuple[int, ...]]
) -> Stability:
    """Return a measurement at three seeds."""
    named = {f"one.{name}": outcomes for name, outcomes in claims.items()}
    return Stability(
        tier=tier, seeds=(0, 1, 2), inputs=inputs, commits=("abc",), claims=named
    )


def test_a_file_keeps_what_it_says_of_others(tmp_path: Path) -> None:
    file = tmp_path / "stability.json"
    first, second = made_up(mean={"holds": (0, 1)}), made_up(mean={"fails": (0, 1, 2)})
    save({"one": first, "two": first}, file)
    save({"two": second, "one": first.model_copy(update={"commits": ()})}, file)
    assert load(file) == {"one": (first,), "two": (second,)}
    higher = made_up(tier="book", mean={"holds": (0,)})
    save({"one": higher}, file)
    save({"one": second}, file)
    assert load(file) == {"one": (second, higher), "two": (second,)}
    save({"one": first}, file)
    assert '"holds": "0:2"' in file.read_text()
    assert load(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"0:2"', '"0:4"'),
        ('"0:2"', '"0:2,1"'),
        ('"holds": "0:2"', '"holds": "0:2", "fails": "1"'),
        ('"quick"', '"quik"'),
        ('"book"', '"quick"'),
        ('"inputs"', '"input"'),
        ("{", "["),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "stability.json"
    save({"one": made_up(mean={"holds": (0, 1)})}, file)
    save({"one": made_up(tier="book", mean={"fails": (0,)})}, file)
    edit(file, old, new)
    with pytest.raises(stability.StabilityError, match=r"stability\.json must be what"):
        load(file)


def test_the_book_s_file_is_of_its_studies() -> None:
    project = Project(HERE)
    for name, tiers in load(HERE / "book" / "stability.json").items():
        record = project.record(name)
        for found in tiers:
            if found.inputs == stability.digest(name, found.tier, project):
                assert found.claims.keys() == {claim.id for claim in record.claims}


# ------------------------------------------------------------- the pages


class Pages:
    """What the book would show of the small project, with made-up stability."""

    def __init__(self, extension: Any, project: Project, file: Path) -> None:
        self.book, self.project, self.file = extension, project, file
        uri = SimpleNamespace(get_relative_uri=lambda _, there: there)
        self.page = extension.Page(SimpleNamespace(builder=uri), "book/intro")
        found = read_result(result_path(QUICK[0], project), project)
        judged = {b["claim"]: b for b in found.bundles}
        self.result = extension.StudyResult(
            project.record("one"), "notebooks/one", judged, found.run
        )

    def show(self, part: str) -> str:
        measured = load(self.file).get("one", ())
        found = self.book.with_seeds(self.result, measured, self.project)
        return getattr(self.book, part)(
            self.page, found if part == "board_html" else [found]
        )


@pytest.fixture
def pages(
    extension: Any, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Pages:
    """The pages, with no measurement yet."""
    monkeypatch.setattr(extension, "load_studies", lambda: {"one": {"field": "F"}})
    reach = extension.Reach(scale="one number", beyond=())
    known = {claim.id: reach for claim in project.record("one").claims}
    monkeypatch.setattr(extension, "load_reach", lambda record: known)
    return Pages(extension, project, tmp_path / "stability.json")


PARTS = ["compact_html", "board_html", "stability_html"]


@pytest.mark.parametrize("part", PARTS)
def test_what_was_not_measured_is_not_shown(pages: Pages, part: str) -> None:
    for found in ({}, {"two": made_up()}, {"one": made_up(mean={"holds": (0, 1, 2)})}):
        save(found, pages.file)  # none, of another study, of other inputs
        shown = pages.show(part)
        assert "Over seeds: not measured." in shown
        assert "lnlib-seeds" not in shown
    assert ("Not measured since they changed: one." in shown) == (
        part == "stability_html"
    )


@pytest.mark.parametrize("part", PARTS)
def test_stability_is_shown(pages: Pages, part: str) -> None:
    inputs = stability.digest("one", "quick", pages.project)
    spread = {"fails": (0,), "undecided": (2,)}
    found = made_up(inputs, mean={"holds": (0, 1, 2)}, spread=spread)
    save({"one": found}, pages.file)
    shown = pages.show(part)
    wanted = "at tier quick, 1 of 2 claims came out as expected at every one of 3 seeds"
    assert wanted in shown
    assert "not measured:" not in shown
    counts = {"3 of 3 seeds": part != "stability_html", "1 of 3 seeds": True}
    for count, there in counts.items():
        assert (f">{count}</span>" in shown) == there
    assert "fails at 1 of 3 seeds, tier quick; undecided at 2; no result at 1" in shown
    assert shown.count('data-stable="false"') == 1


def test_no_claim_is_named_without_need(pages: Pages) -> None:
    inputs = stability.digest("one", "quick", pages.project)
    always = {"mean": {"holds": (0, 1, 2)}, "spread": {"fails": (0, 1, 2)}}
    save({"one": made_up(inputs, **always)}, pages.file)
    shown = pages.show("stability_html")
    assert "2 of 2 claims came out as expected at every one of 3 seeds." in shown
    assert "one.mean" not in shown
    assert json.loads(pages.file.read_text())["one"][0]["seeds"] == "0:3"


@pytest.mark.parametrize("part", PARTS)
def test_each_tier_is_told(pages: Pages, part: str) -> None:
    always = {"mean": {"holds": (0, 1, 2)}, "spread": {"fails": (0, 1, 2)}}
    for tier, claims in (
        ("quick", always),
        ("book", always | {"mean": {"holds": (0,), "undecided": (1, 2)}}),
    ):
        inputs = stability.digest("one", tier, pages.project)
        save({"one": made_up(inputs, tier, **claims)}, pages.file)
    shown = pages.show(part)
    assert "at tier quick, 2 of 2 claims" in shown
    assert "at tier book, 1 of 2 claims" in shown
    worst = "holds at 3 of 3 seeds, tier quick; holds at 1 of 3 seeds, tier book; "
    assert f'{worst}undecided at 1 to 2">1 of 3 seeds</span>' in shown
    assert shown.count('data-stable="false"') == 1
    if part == "stability_html":
        assert "Tier book: undecided at 1 to 2" in shown


def test_a_claim_that_no_tier_measured_is_counted(pages: Pages) -> None:
    higher = pages.result.record.model_copy(
        update={
            "claims": tuple(
                c.model_copy(update={"tier": "book"}) if c.id == "one.mean" else c
                for c in pages.result.record.claims
            )
        }
    )
    pages.result = dataclasses.replace(pages.result, record=higher)
    inputs = stability.digest("one", "quick", pages.project)
    spread = {"fails": (0, 1, 2)}
    for mean, count in (
        ({"not judged": (0, 1, 2)}, "1 of 1"),
        ({"not judged": (0, 1), "law missed": (2,)}, "1 of 2"),
    ):
        save({"one": made_up(inputs, mean=mean, spread=spread)}, pages.file)
        shown = pages.show("stability_html")
        assert f"{count} claims came out" in shown
        assert "not measured: 1 of 2 claims." in shown
        assert f"Not every claim is measured: {higher.title}." in shown
    inputs = stability.digest("one", "book", pages.project)
    mean = {"holds": (0, 1, 2)}
    save({"one": made_up(inputs, "book", mean=mean, spread=spread)}, pages.file)
    shown = pages.show("stability_html")
    assert "at tier book, 2 of 2 claims" in shown
    assert "measured" not in shown
