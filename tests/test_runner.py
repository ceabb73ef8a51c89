"""The runner is itself tested to fail: on small studies, each broken in one way."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jupyter_cache
import nbformat
import papermill
import papermill.engines
import pytest
from jupyter_cache import get_cache
from studies import IMPORTS, MEASURE, OPEN, PARAMETERS, add_study, edit, make_project

from lnlib import results, runner
from lnlib.claims import RUN_MIME, VERDICT_MIME
from lnlib.results import (
    DamagedResult,
    Job,
    Project,
    ProjectError,
    bundles,
    read_notebook,
    read_result,
    result_path,
    status,
)
from lnlib.runner import execute, plan

ONE = Job("one", "quick")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without studies."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose only study was run; not to be changed."""
    project = make_project(tmp_path_factory.mktemp("done") / "project")
    (project.root / "lnlib" / "extra.py").write_text("from lnlib import choices\n")
    add_study(project, "one", work="%precision 3\nfrom lnlib import extra\n1 + 1")
    assert execute(ONE, project).error is None
    return project


@pytest.fixture
def finished(done: Project, tmp_path: Path) -> Project:
    """A copy of it, to break."""
    shutil.copytree(done.root, tmp_path / "copy")
    return Project(tmp_path / "copy")


def path_of(project: Project, job: Job = ONE) -> Path:
    return result_path(job, project)


def no_result(project: Project, job: Job = ONE) -> bool:
    """Say whether nothing that could pass for a result was left."""
    names = {path.name for path in path_of(project).parent.iterdir()}
    allowed = {f"{job.name}.failed.ipynb", f".{job.name}.lock"}
    state = status(job, project)
    return state.startswith(("missing", "failed: ")) and names <= allowed


# ------------------------------------------------------------- runs that fail


@pytest.mark.parametrize(
    ("left", "cells", "message"),  # a result is left if it closed as it was asked to
    [
        (False, {"work": "1 / 0"}, "cell work (1 / 0): ZeroDivisionError"),
        (
            False,
            {"work": "import os\nos.kill(os.getpid(), 9)"},
            "cell work (import os): the kernel died",
        ),
        (False, {"close": "pass"}, "must close once; it closed 0 times"),
        (
            False,
            {"measure": MEASURE.replace("exact(4.0", "exact(2.0")},
            "law one.spread/variance",
        ),
        (
            False,
            {"measure": MEASURE.replace("exact(2.0", "exact(0.0")},
            "one.spread is holds",
        ),
        (
            True,
            {
                "measure": MEASURE.replace("exact(4.0", "exact(2.0"),
                "close": "try:\n    study.close()\nexcept RuntimeError:\n    pass",
            },
            "law variance is missed",
        ),
        (True, {"open": OPEN.replace("0.0", "0.1")}, "settings are not the ordinary"),
        (
            False,
            {"open": OPEN.replace("tier=tier", "tier='book'")},
            "tier must be 'quick'",
        ),
    ],
    ids=[
        "raises",
        "kernel-killed",
        "not-closed",
        "law-missed",
        "other-verdict",
        "law-missed-and-hushed",
        "changed-settings",
        "other-tier",
    ],
)
def test_failing_study(
    project: Project, left: bool, cells: dict[str, str], message: str
) -> None:
    add_study(project, "one", **cells)
    outcome = execute(ONE, project)
    assert outcome.error is not None
    assert message in outcome.error
    failed = path_of(project).with_suffix(".failed.ipynb")
    assert path_of(project).exists() == left
    assert failed.exists() == (str(failed) in outcome.error) == (not left)
    assert no_result(project) != left


@pytest.mark.parametrize(
    "cells",
    [
        {"work": "import time\ntime.sleep(60)"},
        {
            "imports": f"import time\n{IMPORTS}\ntime.sleep(3)",
            "work": "time.sleep(4)",
            "close": "time.sleep(4)\nstudy.close()",
        },
    ],
    ids=["one-cell", "many-cells"],
)
def test_time_limit(project: Project, cells: dict[str, str]) -> None:
    """papermill's own limit is one for each cell."""
    add_study(project, "one", **cells)
    outcome = execute(ONE, project, limit=6)
    assert re.match(r"cell (work|close) .*: ran longer than 6 s", str(outcome.error))
    assert no_result(project)


@pytest.mark.parametrize("work", ["1 + 1", "import os\nos.kill(os.getpid(), 9)"])
def test_a_notebook_is_written_at_start_and_end(
    project: Project, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    add_study(project, "one", work=work)
    write, writes = papermill.engines.write_ipynb, []
    monkeypatch.setattr(
        papermill.engines,
        "write_ipynb",
        lambda notebook, path: [writes.append(1), write(notebook, path)],
    )
    execute(ONE, project)
    assert len(writes) == 2


def test_control_moves_and_leaves(project: Project) -> None:
    add_study(project, "one")
    job = Job("one", "quick", control="shifted")
    assert execute(job, project).error is None
    result = read_result(path_of(project, job), project)
    assert result.verdicts == {"one.mean": "fails", "one.spread": "fails"}


def test_control_that_the_notebook_does_not_read(project: Project) -> None:
    add_study(project, "one")
    outcome = execute(Job("one", "quick", control="narrow"), project)
    assert "narrow must change exactly one setting" in str(outcome.error)


def test_control_that_moves_nothing(project: Project) -> None:
    add_study(project, "one", measure=MEASURE.replace("exact(offset", "exact(0.0"))
    job = Job("one", "quick", control="shifted")
    wanted = "one.mean is holds; control shifted must move it to fails"
    assert execute(job, project).error == wanted
    assert execute(job, project).error == wanted, "also when the result is fresh"


def test_control_that_moves_too_much(project: Project) -> None:
    measure = MEASURE.replace("exact(2.0", "exact(2.0 * (1 - offset)")
    add_study(project, "one", measure=measure)
    job = Job("one", "quick", control="shifted")
    wanted = "one.spread is holds; control shifted must leave it fails"
    assert execute(job, project).error == wanted


# ------------------------------------------------------------- calls that are refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"studies": ["onne"]}, "study must be one of one; received 'onne'. Did you"),
        ({"tier": "quik"}, "tier must be one of quick, book, full; .* mean 'quick'"),
        ({"device": "gpu"}, "device must be one of cpu, cuda; received 'gpu'"),
        ({"control": "shiftd"}, "one of all, none, shifted, narrow; .* 'shifted'"),
    ],
)
def test_unknown_name(project: Project, call: dict[str, Any], message: str) -> None:
    add_study(project, "one")
    with pytest.raises(ValueError, match=message):
        plan(project, **call)


def test_plan_of_controls(project: Project) -> None:
    add_study(project, "one")
    add_study(project, "two")
    jobs = plan(project, ["two"], tier="quick", control="all")
    assert [job.control for job in jobs] == ["none", "shifted", "narrow"]
    assert {job.study for job in jobs} == {"two"}
    assert len(plan(project, control="shifted")) == 2


@pytest.mark.parametrize(
    "parameters",
    [
        PARAMETERS.replace("seed", "sed"),
        PARAMETERS.replace("seed = 0", "seed = 1"),
        PARAMETERS + "\nwidth = 8",
        PARAMETERS.replace("seed = 0", "seed = int(0)"),
        "",
    ],
)
def test_misspelt_parameter(project: Project, parameters: str) -> None:
    add_study(project, "one", parameters=parameters)
    with pytest.raises(ProjectError, match=r"one\.ipynb must have one cell tagged"):
        plan(project)


def test_notebook_and_registry_belong_together(project: Project) -> None:
    with pytest.raises(ProjectError, match="no study"):
        project.studies()
    add_study(project, "one")
    assert project.studies() == ["one"]
    project.notebook("one").rename(project.notebook("other"))
    with pytest.raises(ProjectError, match=r"one\.yml must have its .*one\.ipynb"):
        project.studies()
    (project.registry / "one.yml").unlink()
    with pytest.raises(ProjectError, match=r"other\.ipynb must have its .*other\.yml"):
        project.studies()


def test_notebook_that_is_not_python(project: Project) -> None:
    add_study(project, "one", work="1 +")
    with pytest.raises(ProjectError, match=r"one\.ipynb must be Python: invalid"):
        results.inputs(ONE, project)


# ------------------------------------------------------------- damaged results


def first(notebook: Any, mime: str) -> Any:
    """Return the first output with that MIME type."""
    outputs = (o for cell in results.code_cells(notebook) for o in cell.outputs)
    return next(o for o in outputs if mime in o.get("data", {})).data


def number(notebook: Any) -> None:
    first(notebook, VERDICT_MIME)[VERDICT_MIME]["evidence"][0]["estimate"] = 0.005


def interval(notebook: Any) -> None:
    evidence = first(notebook, VERDICT_MIME)[VERDICT_MIME]["evidence"][0]
    evidence.update(estimate=3.0, low=2.9, high=3.1)


def outcome(notebook: Any) -> None:
    first(notebook, VERDICT_MIME)[VERDICT_MIME]["evidence"][0]["outcome"] = "missed"


def bound(notebook: Any) -> None:
    first(notebook, VERDICT_MIME)[VERDICT_MIME]["evidence"][0]["bound"] = 9.0


def verdict(notebook: Any) -> None:
    first(notebook, VERDICT_MIME)[VERDICT_MIME]["verdict"] = "fails"


def evidence(notebook: Any) -> None:
    """Remove a law, without which the verdict would be the same."""
    bundles(notebook, VERDICT_MIME)[1]["evidence"].pop()


def page(notebook: Any) -> None:
    data = first(notebook, VERDICT_MIME)
    data["text/html"] = data["text/html"].replace("holds", "fails")


def removed(notebook: Any) -> None:
    del first(notebook, VERDICT_MIME)[VERDICT_MIME]


def table(notebook: Any) -> None:
    first(notebook, RUN_MIME)[RUN_MIME]["verdicts"]["one.mean"] = "fails"


def closing(notebook: Any) -> None:
    notebook.cells[-1].outputs.clear()


def code(notebook: Any) -> None:
    notebook.cells[-2].source += "\n"


def seconds(notebook: Any) -> None:
    notebook.metadata.lnlib.seconds = 0.0


def seal(notebook: Any) -> None:
    del notebook.metadata["lnlib"]


EDITS = [number, interval, outcome, bound, verdict, evidence, removed, table, closing]


@pytest.mark.xdist_group("runner")
@pytest.mark.parametrize("change", [*EDITS, page, code, seconds, seal])
def test_edited_result(finished: Project, change: Callable[[Any], None]) -> None:
    path = path_of(finished)
    notebook = read_notebook(path)
    change(notebook)
    nbformat.write(notebook, path)
    assert status(ONE, finished).startswith(f"damaged: {path} ")
    with pytest.raises(DamagedResult, match=r"one\.ipynb"):
        read_result(path, finished)


@pytest.mark.xdist_group("runner")
@pytest.mark.parametrize("change", [e for e in EDITS if e is not number])
def test_edited_and_sealed_again(
    finished: Project, change: Callable[[Any], None]
) -> None:
    """The numbers must still lead to the verdict, for somebody who mends the seal."""
    path = path_of(finished)
    notebook = read_notebook(path)
    change(notebook)
    nbformat.write(notebook, path)
    results.seal(path, notebook.metadata.lnlib)
    assert status(ONE, finished).startswith(f"damaged: {path}: ")


@pytest.mark.xdist_group("runner")
@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_truncated_result(finished: Project, part: float) -> None:
    path = path_of(finished)
    text = path.read_bytes()
    path.write_bytes(text[: int(part * len(text))])
    assert status(ONE, finished).startswith("damaged: ")
    assert "is not a whole result" in status(ONE, finished)


@pytest.mark.xdist_group("runner")
def test_damaged_result_is_run_again(finished: Project) -> None:
    path_of(finished).write_text("{}")
    partial = path_of(finished).with_name(".one.0123.partial.ipynb")
    partial.write_text("left by a run that was killed")
    assert execute(ONE, finished).error is None
    assert status(ONE, finished) == "fresh"
    assert not partial.exists()


@pytest.mark.xdist_group("runner")
def test_another_run_s_result_is_no_result(finished: Project) -> None:
    """A file under the wrong name, such as quick for book, is found out."""
    for job in (Job("one", "book"), Job("one", "quick", control="shifted")):
        path_of(finished, job).parent.mkdir(exist_ok=True)
        shutil.copy(path_of(finished), path_of(finished, job))
    assert status(Job("one", "book"), finished) == "stale: tier quick -> book"
    wrong = Job("one", "quick", control="shifted")
    assert status(wrong, finished) == "stale: control none -> shifted"


# ------------------------------------------------------------- stale or fresh


@pytest.mark.xdist_group("runner")
def test_fresh_result_is_kept(finished: Project) -> None:
    before = path_of(finished).stat().st_mtime_ns
    assert status(ONE, finished) == "fresh"
    assert execute(ONE, finished).error is None
    assert path_of(finished).stat().st_mtime_ns == before


@pytest.mark.xdist_group("runner")
@pytest.mark.parametrize(
    ("file", "old", "new", "state"),
    [
        ("notebooks/one.ipynb", "exact(4.0", "exact(4.1", "stale: code cells changed"),
        ("notebooks/one.ipynb", "# A study", "# The study", "fresh"),
        ("lnlib/stats.py", '"""', '"""New. ', "stale: lnlib/stats.py changed"),
        ("lnlib/extra.py", "from", "1\nfrom", "stale: lnlib/extra.py changed"),
        ("lnlib/choices.py", '"""', '"""New. ', "stale: lnlib/choices.py changed"),
        ("lnlib/norms.py", '"""', '"""New. ', "fresh"),
        ("lnlib/runner.py", '"""', '"""New. ', "fresh"),
        (
            "lnlib/registry/one.yml",
            "expected: holds",
            "expected: undecided",
            "stale: lnlib/registry/one.yml changed",
        ),
        (
            "lnlib/registry/one.yml",
            "bound: 0.5",
            "bound: 0.6",
            "stale: lnlib/registry/one.yml changed",
        ),
    ],
)
def test_what_makes_stale(
    finished: Project, file: str, old: str, new: str, state: str
) -> None:
    edit(finished.root / file, old, new)
    assert status(ONE, finished) == state


@pytest.mark.xdist_group("runner")
@pytest.mark.parametrize("new", [("work", "imports"), ("imports", "working")])
def test_other_ids_of_cells_make_stale(finished: Project, new: tuple[str, str]) -> None:
    """Two are swapped, or one is renamed: outputs are found by the ids."""
    notebook = read_notebook(finished.notebook("one"))
    cells = {cell.id: cell for cell in notebook.cells}
    cells["imports"].id, cells["work"].id = new
    nbformat.write(notebook, finished.notebook("one"))
    assert status(ONE, finished) == "stale: code cells changed"


@pytest.mark.xdist_group("runner")
def test_edited_while_it_is_read(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook counts as it was read; what was written behind counts next time."""
    path, read = finished.notebook("one"), Path.read_bytes
    notebook = read_notebook(path)
    notebook.cells[-1].source += "\npass"
    new = nbformat.writes(notebook)

    def read_and_edit(self: Path) -> bytes:
        content = read(self)
        if self == path:
            path.write_text(new, "utf-8")
        return content

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_and_edit)
        assert status(ONE, finished) == "fresh"
    assert status(ONE, finished) == "stale: code cells changed"


@pytest.mark.xdist_group("runner")
def test_new_library_makes_stale(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results.metadata, "version", lambda name: f"{name}-9")
    assert "torch 2." in status(ONE, finished)
    assert "-> torch-9" in status(ONE, finished)


@pytest.mark.xdist_group("runner")
def test_only_dependents_become_stale(finished: Project) -> None:
    add_study(finished, "two")
    two = Job("two", "quick")
    assert execute(two, finished).error is None
    edit(finished.root / "lnlib/extra.py", "from", "1\nfrom")
    assert status(ONE, finished) == "stale: lnlib/extra.py changed"
    assert status(two, finished) == "fresh"


# ------------------------------------------------------------- the book's cache


@pytest.mark.xdist_group("runner")
def test_cache_is_found_by_the_book(finished: Project) -> None:
    cache = runner.book_cache(finished, "quick")
    assert cache.parent == finished.root / "_build/test/.jupyter_cache"
    runner.cache_result(ONE, cache, finished)
    source = read_notebook(finished.notebook("one"))
    _, merged = get_cache(cache).merge_match_into_notebook(source)
    executed = read_notebook(path_of(finished))
    assert bundles(merged, VERDICT_MIME) == bundles(executed, VERDICT_MIME)
    assert [b["claim"] for b in results.verdicts_of(merged, finished)]
    code = results.code_cells(merged)
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5, 6]
    assert code[3].outputs[0].execution_count == 4


@pytest.mark.xdist_group("runner")
def test_one_process_at_a_time_fills_the_cache(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, taken = runner.book_cache(finished, "quick"), []

    def watched(path: Path) -> Any:
        with (cache / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                taken.append(path)
        return get_cache(path)

    monkeypatch.setattr(jupyter_cache, "get_cache", watched)
    runner.cache_result(ONE, cache, finished)
    assert taken == [cache]


@pytest.mark.xdist_group("runner")
def test_cache_refuses_what_is_not_the_default_or_not_fresh(finished: Project) -> None:
    with pytest.raises(ValueError, match="tier of the book must be one of book, quick"):
        runner.book_cache(finished, "full")
    cache = runner.book_cache(finished, "quick")
    for job in (
        Job("one", "quick", seed=1),
        Job("one", "quick", control="shifted"),
        Job("one", "quick", device="cuda"),
    ):
        with pytest.raises(ValueError, match="default parameters"):
            runner.cache_result(job, cache, finished)
    edit(finished.notebook("one"), "exact(4.0", "exact(4.1")
    with pytest.raises(ValueError, match="must be fresh, is stale"):
        runner.cache_result(ONE, cache, finished)
    assert not cache.exists()


@pytest.mark.xdist_group("runner")
def test_cache_moves_with_lnlib_and_registry(finished: Project) -> None:
    def where() -> Path:
        return runner.book_cache(finished)

    first = where()
    assert first.parent == finished.root / "_build/.jupyter_cache"
    edit(finished.notebook("one"), "# A study", "# The study")
    edit(finished.root / "lnlib/norms.py", '"""', '"""New. ')
    assert where() == first
    edit(finished.root / "lnlib/registry/one.yml", "bound: 0.5", "bound: 0.6")
    second = where()
    assert second != first
    edit(finished.root / "lnlib/extra.py", "from", "1\nfrom")
    assert where() not in (first, second)


@pytest.mark.xdist_group("runner")
def test_unsealed_notebook_is_judged_again(finished: Project) -> None:
    notebook = read_notebook(path_of(finished))
    assert len(results.verdicts_of(notebook, finished)) == 2
    verdict(notebook)
    with pytest.raises(DamagedResult, match="the evidence makes the verdict holds"):
        results.verdicts_of(notebook, finished)


# ------------------------------------------------------------- kernels and time


@pytest.mark.xdist_group("runner")
def test_expected_seconds(finished: Project) -> None:
    last = read_result(path_of(finished), finished).seal["seconds"]
    assert runner.expected_seconds(ONE, finished) == last
    assert runner.expected_seconds(Job("one"), finished) == runner.BUDGETS["book"]
    path_of(finished).write_text("{}")
    assert runner.expected_seconds(ONE, finished) == runner.BUDGETS["quick"]


@pytest.mark.xdist_group("runner")
def test_seal_counts_the_kernel_s_time(finished: Project) -> None:
    seal = read_result(path_of(finished), finished).seal
    assert 0.3 < seal["cpu_seconds"] < 60
    assert seal["seconds"] > 0


def test_a_reason_is_never_empty() -> None:
    """A kernel without memory may fail to say why."""
    assert runner._reason(ZeroDivisionError("no")) == "ZeroDivisionError: no"
    assert runner._reason(RuntimeError()).endswith("no reason; out of memory?")


def test_one_thread_in_each_kernel(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    work = "import os\nassert os.environ['OMP_NUM_THREADS'] == '1'"
    cwd = "assert os.path.basename(os.getcwd()) == 'notebooks'"
    add_study(project, "one", work=f"{work}\n{cwd}")
    before = dict(os.environ)
    assert execute(ONE, project).error is None
    assert dict(os.environ) == before


def test_plain_papermill(project: Project) -> None:
    add_study(project, "one")
    words = "notebooks/one.ipynb out.ipynb -p seed 7 -p tier quick"
    done = subprocess.run(
        [sys.executable, "-m", "papermill", *words.split()],
        cwd=project.root,
        env=os.environ | {"PYTHONPATH": str(project.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    notebook = read_notebook(project.root / "out.ipynb")
    assert len(results.verdicts_of(notebook, project)) == 2
    assert bundles(notebook, RUN_MIME)[0]["seed"] == 7


def test_an_import_counts_wherever_it_stands(project: Project) -> None:
    add_study(
        project, "one", work="def late():\n    if True:\n        import lnlib.probes"
    )
    assert "lnlib/probes.py" in results.surroundings(["one"], project)
    add_study(project, "two", work="import math")
    assert "lnlib/probes.py" not in results.surroundings(["two"], project)


def test_no_grammar_of_addresses_is_loaded() -> None:
    """It takes longer than all else that a command loads; others may load it later."""
    code = (
        "import sys, lnlib.__main__\n"
        "assert 'rfc3987_syntax' not in sys.modules\n"
        "import rfc3987_syntax"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
