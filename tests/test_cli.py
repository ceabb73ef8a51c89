"""`python -m lnlib`: exit status, messages, interruption, two runs at once."""

from __future__ import annotations

import functools
import signal
import time
from pathlib import Path

import psutil
import pytest
from studies import add_study, edit, lnlib, make_project

from lnlib import __main__ as cli
from lnlib import data
from lnlib.results import Job, Project, result_path, status

ONE, TWO = Job("one", "quick"), Job("two", "quick")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one study, which the commands of this process use."""
    project = make_project(tmp_path / "project")
    add_study(project, "one")
    monkeypatch.setattr(cli, "Project", functools.partial(Project, project.root))
    monkeypatch.delenv(data.VARIABLE, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield project
    signal.signal(signal.SIGTERM, before)


def wait_for(path: Path, seconds: float = 60) -> None:
    """Return when a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.05)


# ------------------------------------------------------------- bad calls


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run onne", "study must be one of one; received 'onne'. Did you mean 'one'?"),
        ("run --tier quik", "Did you mean 'quick'?"),
        ("run --control shiftd", "one of all, none, shifted, narrow; received"),
        ("run --device gpu", "device must be one of cpu, cuda; received 'gpu'."),
        ("run --sede 7", "--force; received '--sede'. Did you mean '--seed'?"),
        ("run --sede=7", "Did you mean '--seed'?"),
        ("run --seed -1", "--seed must be a whole number >= 0; received '-1'"),
        ("run --seed 1.5", "--seed must be a whole number >= 0; received '1.5'"),
        ("run --seed 10000", "seed must be a whole number from 0 to 9999; received"),
        ("run --jobs 0", "--jobs must be a whole number >= 1; received '0'"),
        ("run --results lnlib/runner.py", "--results must be a folder"),
        ("verdicts onne", "Did you mean 'one'?"),
        ("verdicts --tier boook", "Did you mean 'book'?"),
        ("data digit", "data set must be one of digits"),
        ("data --folder /nowhere", "--folder must be a folder; received /nowhere"),
        ("run --seeds 0-20", "seeds must be whole numbers from 0 to 9999 or half-open"),
        (
            "run --seed 1 --seeds 0:2",
            "not be given together; received --seed 1 --seeds",
        ),
        ("run --seeds 0:2 --seed 0", "leave one out"),
        ("verdicts --seeds 4:2", "'4:2' is empty"),
        ("verdicts --json x.json", "--json must come with --seeds"),
        (
            "verdicts --seeds 0 --json no/x",
            "--json must be a file in a folder; received",
        ),
        ("verdicts --seeds 0 --json lnlib/stats.py", "stats.py must be what `python"),
    ],
)
def test_bad_call(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    message: str,
) -> None:
    monkeypatch.chdir(project.root)
    assert cli.main(words.split()) == 2
    assert message in capsys.readouterr().err
    assert not project.results.exists()


@pytest.mark.parametrize("words", ["", "rnu", "run --tier"])
def test_call_that_is_no_command(words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words.split())
    assert stopped.value.code == 2


def test_no_cuda(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(["run", "--device", "cuda"]) == 2
    assert "must find a CUDA device; use --device cpu" in capsys.readouterr().err


def test_data_folder_that_is_missing(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(data.VARIABLE, "/nowhere")
    assert cli.main(["run"]) == 2
    assert "LNLIB_DATA must name a folder; received '/nowhere'" in (
        capsys.readouterr().err
    )


def test_data_folder_is_the_same_for_the_kernel(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setenv(data.VARIABLE, "lnlib")
    here = str(project.root / "lnlib")
    work = f"import os\nassert os.environ['LNLIB_DATA'] == {here!r}"
    add_study(project, "one", work=work)
    assert cli.main(["run", "--tier", "quick", "--jobs", "1"]) == 0


def test_misspelt_parameter_in_a_notebook(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project.notebook("one"), "seed = 0", "sed = 0")
    assert cli.main(["run"]) == 2
    assert "must have one cell tagged parameters" in capsys.readouterr().err


# ------------------------------------------------------------- runs


def test_run_names_what_is_stale_and_runs_only_that(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = project.root / "lnlib" / "extra.py"
    extra.write_text("LIMIT = 1\n", encoding="utf-8")
    add_study(project, "two", work="from lnlib.extra import LIMIT\nassert LIMIT < 3")
    run = ["run", "--tier", "quick", "--jobs", "1"]
    assert cli.main(run) == 0
    first = capsys.readouterr().out
    assert "one (quick): missing\n" in first
    assert "2 run, 0 fresh, 0 failed" in first
    assert cli.main(["verdicts", "one", "--tier", "quick"]) == 0
    told = capsys.readouterr().out
    assert "mean 0 [-0.01, 0.01], predicted < 0.5: met" in told
    assert "two" not in told

    assert cli.main(run) == 0
    assert "0 run, 2 fresh, 0 failed" in capsys.readouterr().out

    extra.write_text("LIMIT = 2\n", encoding="utf-8")
    assert cli.main(run) == 0
    second = capsys.readouterr().out
    assert "two (quick): stale: lnlib/extra.py changed (discarded)\n" in second
    assert "1 run, 1 fresh, 0 failed" in second

    edit(result_path(ONE, project), "holds", "fails")
    extra.write_text("LIMIT = 3\n", encoding="utf-8")
    assert cli.main(["verdicts", "--tier", "quick"]) == 1
    told = capsys.readouterr().out
    assert "one (quick) is damaged: " in told
    assert "two (quick) is stale: lnlib/extra.py changed\n  no verdict" in told

    assert cli.main(run) == 1
    third = capsys.readouterr().out
    assert f"one (quick): damaged: {result_path(ONE, project)} was changed" in third
    assert "FAILED two (quick): cell work (from lnlib.extra import LIMIT):" in third
    assert "AssertionError" in third
    assert "2 run, 0 fresh, 1 failed" in third

    assert cli.main(["verdicts", "--tier", "quick"]) == 1
    told = capsys.readouterr().out
    assert "one.spread" in told
    assert "two.spread" not in told
    assert "two (quick) is missing\n  no verdict; run: python -m lnlib run two" in told

    cache = project.root / "_build" / "test" / ".jupyter_cache"
    assert len(list(cache.iterdir())) == 3, "one for each state of lnlib"


@pytest.mark.parametrize("work", ["1 +", "%%bash\necho so"])
def test_a_notebook_that_is_no_python_fails_alone(
    project: Project, capsys: pytest.CaptureFixture[str], work: str
) -> None:
    add_study(project, "two")
    run = ["run", "--tier", "quick", "--jobs", "1"]
    assert cli.main([*run, "two"]) == 0
    add_study(project, "two", work=work)
    capsys.readouterr()
    assert cli.main(["verdicts", "--tier", "quick"]) == 1
    assert "two (quick) is stale: " in capsys.readouterr().out
    assert cli.main(run) == 1
    told = capsys.readouterr().out
    assert "FAILED two (quick): did not start: ProjectError: " in told
    assert "two.ipynb must be Python: " in told
    assert "nothing is handed to the book: " in told
    assert "2 run, 0 fresh, 1 failed" in told
    assert (status(ONE, project), status(TWO, project)) == ("fresh", "missing")
    add_study(project, "two")
    assert cli.main(run) == 0
    assert "1 run, 1 fresh, 0 failed" in capsys.readouterr().out


def test_a_notebook_that_changes_while_it_runs(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    change = "open('one.ipynb', 'r+').write(changed)"
    work = f"changed = open('one.ipynb').read().replace('1 + 1', '1 + 2')\n{change}"
    add_study(project, "one", work=f"{work}\n1 + 1")
    assert cli.main(["run", "--tier", "quick"]) == 1
    said = capsys.readouterr().out
    assert "FAILED one (quick): stale: code cells changed when its run " in said
    assert "1 run, 0 fresh, 1 failed" in said


def test_the_long_version_is_no_page(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "--tier", "full", "--jobs", "1"]) == 0
    assert status(Job("one", "full"), project) == "fresh"
    assert not list(project.root.glob("_build/**/.jupyter_cache"))


def test_a_failed_check_fails_again_while_fresh(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project.notebook("one"), "exact(offset", "exact(0.0")
    run = ["run", "one", "--tier", "quick", "--control", "shifted", "--jobs", "1"]
    for summary in ("1 run, 0 fresh, 1 failed", "0 run, 1 fresh, 1 failed"):
        assert cli.main(run) == 1
        told = capsys.readouterr().out
        assert "control shifted must move it to fails" in told
        assert summary in told


@pytest.mark.parametrize(("jobs", "whole_group"), [("2", False), ("1", True)])
def test_interrupted_and_resumed(
    project: Project, jobs: str, whole_group: bool, tmp_path: Path
) -> None:
    """Ctrl-C ends the kernels and leaves no half result; the rest is not run again."""
    started, hold = tmp_path / "started", tmp_path / "hold"
    hold.touch()
    work = f"""\
import os, pathlib, time
pathlib.Path({str(tmp_path)!r}, "pid").write_text(str(os.getpid()))
pathlib.Path({str(tmp_path)!r}, "pid").rename({str(started)!r})
while os.path.exists({str(hold)!r}):
    time.sleep(0.1)"""
    add_study(project, "two", work=work)
    run = ["run", "--tier", "quick", "--jobs", jobs]
    with lnlib(project, *run) as process:
        wait_for(result_path(ONE, project))
        wait_for(started)
        kernel = psutil.Process(int(started.read_text()))
        if whole_group:
            psutil.os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=30)[0]
    assert process.returncode == 130, told
    assert "interrupted; finished studies are kept" in told
    psutil.wait_procs([kernel], timeout=10)
    assert not kernel.is_running()
    assert status(ONE, project) == "fresh"
    assert status(TWO, project) == "missing"
    if whole_group:
        return
    before = result_path(ONE, project).stat().st_mtime_ns

    hold.unlink()
    with lnlib(project, *run) as process:
        told = process.communicate(timeout=60)[0]
    assert process.returncode == 0, told
    assert "1 run, 1 fresh, 0 failed" in told
    assert status(TWO, project) == "fresh"
    assert result_path(ONE, project).stat().st_mtime_ns == before
    assert not list(project.results.glob("quick/.*.partial.ipynb"))


def test_two_runs_at_once(project: Project, tmp_path: Path) -> None:
    log = tmp_path / "log"
    work = f"with open({str(log)!r}, 'a') as file:\n    file.write('run ')"
    add_study(project, "one", work=work)
    run = ["run", "--tier", "quick", "--jobs", "1"]
    pair = [lnlib(project, *run) for _ in range(2)]
    for process in pair:
        told = process.communicate(timeout=90)[0]
        assert process.returncode == 0, told
    assert log.read_text() == "run ", "the second waits for the first and uses it"
    assert status(ONE, project) == "fresh"


def test_fetch_data(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["data", "digits"]) == 0
    assert "digits: verified, comes with scikit-learn" in capsys.readouterr().out

    def fetch(name: str, folder: Path | None) -> list[Path]:
        raise data.DataError("it could not be downloaded")

    monkeypatch.setattr(data, "fetch", fetch)
    assert cli.main(["data", "etth1"]) == 1
    assert "FAILED etth1: it could not be downloaded" in capsys.readouterr().out
