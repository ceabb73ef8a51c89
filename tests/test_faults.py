"""Faults, injected for real: what book/faults.md promises of each is what happens.

Its table is the list of the faults.  A test takes from its row what is seen and with
which status the command ends; a row without a test fails, and a test without a row.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import http.server
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jupyter_cache
import papermill
import pooch
import psutil
import pytest
import yaml
from jupyter_cache import get_cache
from studies import HERE, add_study, edit, lnlib, make_project

from lnlib import __main__ as cli
from lnlib import data, results, runner
from lnlib.claims import RUN_MIME
from lnlib.results import Job, Project, bundles, read_notebook, result_path, status

PAGE = HERE / "book" / "faults.md"
RUN = ("run", "--tier", "quick", "--jobs", "1")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


# ------------------------------------------------------------- the table


class Row(NamedTuple):
    """A row of the page: the fault, what is seen of it, and its tests."""

    fault: str
    seen: str
    status: str
    afterwards: str
    tests: str

    def check(self, told: str, code: int | None = None) -> None:
        """Fail unless this was told, in that order, and this was the exit status."""
        if code is not None:
            assert str(code) == self.status, told
        at = 0
        for part in re.findall(r"`([^`]+)`", self.seen):
            for piece in filter(None, part.split("…")):
                at = told.find(piece, at)
                assert at >= 0, f"{piece!r} must be told, in order; received:\n{told}"
                at += len(piece)


def rows() -> list[Row]:
    """Return the rows of the page's tables."""
    lines = [x for x in PAGE.read_text("utf-8").splitlines() if x.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return [Row(*found) for found in cells if found[0] != "Fault"]


def named_by(row: Row) -> list[str]:
    """Return the ids of a row's tests, each with its file."""
    ids = re.findall(r"`([^`]+)`", row.tests)
    return [i if "::" in i else f"{Path(__file__).name}::{i}" for i in ids]


@functools.cache
def functions(file: str) -> dict[str, str]:
    """Return the source of each test in a file of this folder, with its decorators."""
    source = (HERE / "tests" / file).read_text("utf-8")
    return {
        node.name: "\n".join(map(ast.unparse, [*node.decorator_list, node]))
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """The row of the page that names this test."""
    mine = f"{Path(__file__).name}::{request.node.name}"
    (found,) = [r for r in rows() if {mine, mine.split("[")[0]} & set(named_by(r))]
    return found


def test_every_row_has_its_tests() -> None:
    assert len(rows()) >= 25
    for row in rows():
        assert named_by(row), row.fault
        for name in named_by(row):
            file, _, test = name.partition("::")
            found = functions(file)
            stem, _, case = test.rstrip("]").partition("[")
            assert stem in found, f"{row.fault}: there is no test {name}"
            word = rf"\b{re.escape(case)}\b"
            assert re.search(word, found[stem]), f"{row.fault}: no case {name}"


def test_every_test_has_its_row() -> None:
    listed = {name.split("[")[0] for row in rows() for name in named_by(row)}
    for test in functions(Path(__file__).name):
        if not test.startswith("test_every_"):
            assert f"{Path(__file__).name}::{test}" in listed, f"no row names {test}"


# ------------------------------------------------------------- projects and calls


@pytest.fixture(autouse=True, scope="module")
def _no_data_folder() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(data.VARIABLE, raising=False)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose only study was run; not to be changed."""
    project = make_project(tmp_path_factory.mktemp("done") / "project")
    (project.root / "whim").write_text("pass", encoding="utf-8")
    add_study(project, "one", work='exec(open("../whim").read())')
    assert call(project, *RUN).code == 0
    return project


@pytest.fixture
def finished(done: Project, tmp_path: Path) -> Project:
    """A copy of it, to break."""
    shutil.copytree(done.root, tmp_path / "copy")
    return Project(tmp_path / "copy")


class Told(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    text: str


def call(project: Project, *words: str) -> Told:
    """Give a command to lnlib in this process, with the files of the project."""
    said = io.StringIO()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        patch.setattr(cli, "Project", functools.partial(Project, project.root))
        code = cli.main(words)
    for number, handler in before.items():
        signal.signal(number, handler)
    return Told(code, said.getvalue())


def start(project: Project, *words: str, **more: Any) -> Told:
    """Give it to a process of its own."""
    with lnlib(project, *words, **more) as process:
        text = process.communicate(timeout=120)[0]
    return Told(process.returncode, text)


def job(study: str, tier: str = "quick") -> Job:
    return Job(study, tier)


def content(project: Project, study: str = "one") -> bytes:
    return result_path(job(study), project).read_bytes()


def pages(project: Project) -> set[str]:
    """Return the studies that the book could show."""
    cache = runner.book_cache(project, "quick")
    found = get_cache(cache).list_cache_records() if cache.exists() else []
    return {Path(record.uri).stem for record in found}


def nothing_came_of(study: str, project: Project) -> None:
    """Fail if there is anything that could pass for a result of the study."""
    assert status(job(study), project) == "missing"
    assert study not in pages(project)
    assert not list(project.results.rglob("*.partial.ipynb"))


def runs_again(project: Project, run: int, fresh: int) -> None:
    """Fail unless the next run mends that many studies and leaves the others alone."""
    code, told = call(project, *RUN)
    assert f"{run} run, {fresh} fresh, 0 failed" in told, told
    assert code == 0
    assert pages(project) == set(project.studies())


def wait_for(path: Path, seconds: float = 120) -> None:
    """Return when a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.05)


def hold(folder: Path) -> str:
    """Return a cell that tells its process in `folder`/pid and waits for ever."""
    return f"""\
import os, pathlib, time
pathlib.Path({str(folder)!r}, "new").write_text(str(os.getpid()))
pathlib.Path({str(folder)!r}, "new").rename({str(folder / "pid")!r})
time.sleep(600)"""


# ------------------------------------------------------------- studies that break

NAN = """\
import torch
from lnlib.replicas import train
target = torch.tensor([[1.0], [2.0], [3.0]])
spoil = torch.tensor([1.0, float("nan"), 1.0])
def bowl(p, spoil):
    return (p["w"] - target[:len(spoil)]).square().sum(1) * spoil
run = {"lr": 0.1, "steps": 4}
start = {"w": torch.zeros(3, 1)}
spoilt = train(bowl, start, batches=[(spoil,)] * 4, **run)
whole = train(bowl, start, batches=[(torch.ones(3),)] * 4, **run)
assert torch.equal(spoilt.losses[:, ::2], whole.losses[:, ::2])
assert spoilt.diverged.tolist() == [False, True, False]
offset = float(spoilt.losses[-1].mean())"""
BROKEN = {
    "limit": "import resource\n"
    "resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
    "memory": "import psutil, resource\n"
    "room = psutil.Process().memory_info().vms + (1 << 28)\n"
    "resource.setrlimit(resource.RLIMIT_AS, (room, room))\nbytearray(1 << 46)",
    "offline": "from lnlib import data\ndata.load('tinyshakespeare')",
    "nan": NAN,
}


@dataclass
class Ward:
    """A project of broken studies beside a good one, and what their run left."""

    project: Project
    told: Told
    left: dict[str, str]
    pages: set[str]
    kept: bool


@pytest.fixture(scope="module")
def ward(done: Project, tmp_path_factory: pytest.TempPathFactory) -> Ward:
    """All broken studies, run once; the path has spaces and letters beyond ASCII."""
    project = Project(tmp_path_factory.mktemp("ward") / "Größe µ" / "the ward")
    shutil.copytree(done.root, project.root)
    edit(project.root / "lnlib/data.py", data.GITHUB, "http://127.0.0.1:9")
    edit(project.root / "lnlib/data.py", "tinyshakespeare.txt", "absent.txt")
    before = content(project)
    for study, work in BROKEN.items():
        add_study(project, study, work=work)
    told = start(project, *RUN)
    left = {study: status(job(study), project) for study in BROKEN}
    return Ward(project, told, left, pages(project), content(project) == before)


@pytest.fixture(scope="module")
def mended(ward: Ward) -> Told:
    """The next run, with the cause removed."""
    for study in BROKEN:
        add_study(ward.project, study)
    return start(ward.project, *RUN)


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("study", ["limit", "memory", "offline", "nan"])
def test_a_study_breaks_alone(row: Row, ward: Ward, mended: Told, study: str) -> None:
    after = ward.told.text.split(f"FAILED {study} (quick): ")[1]
    row.check(after.split("FAILED ")[0], ward.told.code)
    assert ward.left[study] == "missing"
    assert ward.pages == {"one"}
    assert ward.kept
    assert f"{study} (quick): missing" in mended.text
    assert f"{len(BROKEN)} run, 1 fresh, 0 failed" in mended.text
    assert status(job(study), ward.project) == "fresh"


@pytest.mark.xdist_group("faults")
def test_a_path_with_spaces_and_letters(row: Row, ward: Ward, mended: Told) -> None:
    row.check(mended.text, mended.code)
    assert " " in str(ward.project.root)
    assert not str(ward.project.root).isascii()
    assert pages(ward.project) == {"one", *BROKEN}


@pytest.mark.xdist_group("faults")
def test_a_kernel_that_stops(
    row: Row, finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers nothing, not even the request to end."""
    monkeypatch.setitem(runner.LIMITS, "quick", 6)
    work = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"
    add_study(finished, "two", work=work)
    row.check(*reversed(call(finished, *RUN)))
    nothing_came_of("two", finished)
    monkeypatch.undo()
    add_study(finished, "two")
    runs_again(finished, 1, 1)


@pytest.mark.xdist_group("faults")
def test_a_kernel_that_does_not_start(row: Row, finished: Project) -> None:
    broken = finished.root / "ipykernel_launcher.py"  # found before the installed one
    broken.write_text("raise SystemExit('out of order')", encoding="utf-8")
    add_study(finished, "two")
    row.check(*reversed(call(finished, *RUN)))
    nothing_came_of("two", finished)
    broken.unlink()
    runs_again(finished, 1, 1)


# ------------------------------------------------------------- interrupted


def interrupt(here: Callable[..., Any], before: bool) -> Callable[..., Any]:
    """Return a function that receives Ctrl-C just before its work, or just after."""

    def interrupted(*words: Any, **more: Any) -> Any:
        if before:
            os.kill(os.getpid(), signal.SIGINT)
        found = here(*words, **more)
        os.kill(os.getpid(), signal.SIGINT)
        return found

    return interrupted


POINTS = [  # where, and whether the study has its result by then
    (runner, "_check_parameters", False),
    (cli, "standing", False),
    (runner, "inputs", False),
    (papermill, "execute_notebook", False),
    (runner, "seal", False),
    (runner, "surprises", True),
    (runner, "cache_result", True),
    (jupyter_cache, "get_cache", True),
]


@pytest.mark.xdist_group("faults")
def test_interrupted_at_any_point(row: Row, finished: Project) -> None:
    before = content(finished)
    add_study(finished, "two")
    for module, name, there in POINTS:
        for first in (True, False):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, name, interrupt(getattr(module, name), first))
                told, code = reversed(call(finished, *RUN))
            row.check(told, code)
            assert content(finished) == before
            assert not list(finished.results.rglob("*.partial.ipynb"))
            if not there:
                nothing_came_of("two", finished)
    runs_again(finished, 0, 2)


@pytest.mark.xdist_group("faults")
def test_interrupted_after_any_time(row: Row, finished: Project) -> None:
    """While modules are imported, Python itself ends by the same signal."""
    before = content(finished)
    add_study(finished, "two")
    ctrl_c, end = signal.SIGINT, signal.SIGTERM
    for delay, number in ((0.3, ctrl_c), (1.5, end), (2.5, ctrl_c), (3.5, end)):
        with lnlib(finished, *RUN[:-1], "2") as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(delay)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            told = process.communicate(timeout=60)[0]
        if process.returncode == 130:
            row.check(told)
        assert process.returncode in (130, -number, 0), told
        assert content(finished) == before
        assert status(job("two"), finished) in ("missing", "fresh")
    call(finished, *RUN)
    runs_again(finished, 0, 2)


@pytest.mark.xdist_group("faults")
def test_a_forced_run_comes_to_no_end(
    row: Row, finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fresh result is kept, until the study itself says otherwise."""
    whim = finished.root / "whim"  # no input that makes a result stale
    before, force = content(finished), (*RUN, "--force")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "inputs", interrupt(runner.inputs, True))
        assert call(finished, *force).code == 130
    assert content(finished) == before
    whim.write_text("import os\nos.kill(os.getpid(), 9)", encoding="utf-8")
    row.check(*reversed(call(finished, *force)))
    assert content(finished) == before
    whim.write_text("1 / 0", encoding="utf-8")
    assert "ZeroDivisionError" in call(finished, *force).text
    assert status(job("one"), finished) == "missing"
    whim.write_text("pass", encoding="utf-8")
    runs_again(finished, 1, 0)


# ------------------------------------------------------------- processes that are lost


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_process_is_killed(
    row: Row, finished: Project, tmp_path: Path, jobs: str
) -> None:
    """The runner itself, or the one of its processes that waits for the kernel."""
    before = content(finished)
    add_study(finished, "two", work=hold(tmp_path))
    if jobs == "2":  # else one process is enough
        add_study(finished, "three")
    with lnlib(finished, *RUN[:-1], jobs) as process:
        wait_for(tmp_path / "pid")
        kernel = psutil.Process(int((tmp_path / "pid").read_text()))
        if jobs == "2":
            wait_for(result_path(job("three"), finished))
        kernel.parent().kill()
        told = process.communicate(timeout=60)[0]
    row.check(told, process.returncode)
    psutil.wait_procs([kernel], timeout=20)
    assert not kernel.is_running(), "it must not outlive its run"
    assert status(job("two"), finished) == "missing"
    assert content(finished) == before
    add_study(finished, "two")
    runs_again(finished, 1, int(jobs))


# ------------------------------------------------------------- disks and folders


def mounted(*commands: str, after: str = "true") -> list[str]:
    """Return what runs a command where these mounts were made, for it alone."""
    script = f'{" && ".join(commands)} || exit 99; "$@"; code=$?; {after}; exit $code'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


@functools.cache
def can_mount() -> bool:
    """Say whether this system lets us mount a folder for one process."""
    command = [*mounted("mount -t tmpfs none /mnt"), "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_mount = pytest.mark.skipif("not can_mount()", reason="mounts need a namespace")
FROZEN = 'mount --bind . . && mount -o remount,bind,ro . && cd "$PWD"'
LARGE = "print('x' * 200_000)"


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("disk", ["limit", pytest.param("full", marks=needs_mount)])
def test_no_room_for_a_result(row: Row, finished: Project, disk: str) -> None:
    before = content(finished)
    add_study(finished, "two", work=LARGE)
    where, saved = "_build/results", finished.root / "saved"
    prefix = {
        "limit": ["sh", "-c", 'ulimit -f 200 && exec "$@"', "sh"],  # half a kilobyte
        "full": mounted(
            f"cp -a {where} saved",
            f"mount -t tmpfs -o size=100k none {where}",
            f"cp -a saved/. {where}",
            after=f"rm -rf saved; cp -a {where} saved",
        ),
    }[disk]
    row.check(*reversed(start(finished, *RUN, prefix=prefix)))
    nothing_came_of("two", finished)
    assert content(finished) == before
    if disk == "full":
        assert (saved / "quick" / "one.ipynb").read_bytes() == before
        assert not list(saved.rglob("two*"))
    else:
        runs_again(finished, 1, 1)


@needs_mount
@pytest.mark.xdist_group("faults")
def test_no_room_for_the_book(row: Row, finished: Project) -> None:
    before = content(finished)
    prefix = mounted("mount -t tmpfs -o size=8k none _build/test")
    row.check(*reversed(start(finished, *RUN, prefix=prefix)))
    assert content(finished) == before
    runs_again(finished, 0, 1)


@needs_mount
@pytest.mark.xdist_group("faults")
def test_a_tree_that_is_read_only(row: Row, finished: Project, tmp_path: Path) -> None:
    before = content(finished)
    add_study(finished, "two")
    row.check(*reversed(start(finished, *RUN, prefix=mounted(FROZEN))))
    nothing_came_of("two", finished)
    words = [*RUN, "two", "--results", str(tmp_path / "elsewhere")]
    assert start(finished, *words, prefix=mounted(FROZEN)).code == 0
    assert (tmp_path / "elsewhere" / "quick" / "two.ipynb").exists()
    assert content(finished) == before
    runs_again(finished, 1, 1)


@pytest.mark.xdist_group("faults")
def test_results_are_deleted_under_way(row: Row, finished: Project) -> None:
    work = "import shutil\nshutil.rmtree('../_build')"
    add_study(finished, "two", work=work)
    row.check(*reversed(call(finished, *RUN)))
    nothing_came_of("two", finished)
    add_study(finished, "two")
    runs_again(finished, 2, 0)


PULL = """\
import shutil

def pull(app, env):
    shutil.rmtree(app.config.nb_execution_cache_path)

def setup(app):
    app.connect("env-updated", pull, priority=1)
"""


@pytest.mark.xdist_group("faults")
def test_the_cache_is_deleted_while_pages_are_built(
    row: Row, finished: Project, tmp_path: Path
) -> None:
    """After the notebooks were read, before the boards are written."""
    root = tmp_path / "Bücher und mehr"
    shutil.copytree(finished.root, root)
    book = root / "book"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HERE / "book" / "_ext", book / "_ext", ignore=ignore)
    fields = {"one": {"field": "Counting", "question": "Is it small?"}}
    config = yaml.safe_load((HERE / "_config.yml").read_text("utf-8"))
    kept = {key: config[key] for key in ("title", "author", "execute")}
    extensions = dict.fromkeys(("lnlib_book", "source_map", "pull"), "book/_ext")
    quiet = {"suppress_warnings": ["mystnb.unknown_mime_type"]}
    sphinx = {"local_extensions": extensions, "config": quiet}
    chapters = [{"file": "notebooks/one"}]
    toc = {"format": "jb-book", "root": "book/intro", "chapters": chapters}
    board = "# Start\n\n```{verdict-board}\n:compact:\n```\n"
    (book / "sources").mkdir()
    (book / "reach").mkdir()
    reach = {"scale": "one number", "beyond": []}
    for file, text in {
        "_config.yml": yaml.safe_dump(kept | {"sphinx": sphinx, "html": {}}),
        "_toc.yml": yaml.safe_dump(toc),
        "book/intro.md": board,
        "book/decisions.yml": "[]",
        "book/verdict_changes.yml": "{}",
        "book/reach/one.yml": yaml.safe_dump(
            {f"one.{c}": reach for c in ("mean", "spread")}
        ),
        "book/sources/studies.yml": yaml.safe_dump(fields),
        "book/_ext/pull.py": PULL,
    }.items():
        (root / file).write_text(text, encoding="utf-8")
    edit(root / "notebooks/one.ipynb", "# A study", "# A study\\n\\nIs it small?")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--all"]

    def build() -> Told:
        environment = {"PYTHONPATH": str(root), "LNLIB_BOOK_TIER": "quick"}
        made = subprocess.run(
            [*command, "-W", "--keep-going"],
            cwd=root,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Told(made.returncode, made.stdout)

    project = Project(root)
    assert call(project, *RUN).code == 0
    row.check(*reversed(build()))
    assert "not run" in (root / "_build/html/book/intro.html").read_text("utf-8")
    (book / "_ext" / "pull.py").write_text("def setup(app): pass", encoding="utf-8")
    runs_again(project, 0, 1)
    assert build().code == 0
    page = (root / "_build/html/book/intro.html").read_text("utf-8")
    assert 'data-claim="one.mean" data-verdict="holds"' in page


# ------------------------------------------------------------- files that were changed


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def conflict(path: Path) -> None:
    edit(path, '"cells"', '<<<<<<< HEAD\n"cells"')


def other(path: Path) -> None:
    path.write_text("{}", encoding="utf-8")


def latin(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"A study", b"A st\xfcdy"))


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("change", [cut, conflict, other, latin])
def test_a_notebook_is_no_notebook(
    row: Row, finished: Project, change: Callable[[Path], None]
) -> None:
    notebook, before = finished.notebook("one"), content(finished)
    text = notebook.read_bytes()
    change(notebook)
    for words in (RUN, ("verdicts", "--tier", "quick")):
        row.check(*reversed(call(finished, *words)))
    assert status(job("one"), finished).startswith(f"stale: {notebook} must be")
    assert content(finished) == before
    notebook.write_bytes(text)
    runs_again(finished, 0, 1)


@pytest.mark.xdist_group("faults")
def test_a_registry_file_is_no_yaml(row: Row, finished: Project) -> None:
    path, before = finished.registry / "one.yml", content(finished)
    text = path.read_bytes()
    edit(path, "claims:", "claims: [")
    row.check(*reversed(call(finished, *RUN)))
    path.write_bytes(text)
    assert content(finished) == before
    runs_again(finished, 0, 1)


def library(seal: dict[str, Any]) -> None:
    seal["inputs"]["torch"] = "1.0.0"


def module(seal: dict[str, Any]) -> None:
    seal["inputs"]["lnlib/claims.py"] = "0" * 64


def form(seal: dict[str, Any]) -> None:
    del seal["inputs"]


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("change", [library, module, form])
def test_a_result_of_another_version(
    row: Row, finished: Project, change: Callable[[dict[str, Any]], None]
) -> None:
    path = result_path(job("one"), finished)
    seal = read_notebook(path).metadata.lnlib
    change(seal)
    results.seal(path, seal)
    code, told = call(finished, "verdicts", "--tier", "quick")
    row.check(told, code)
    assert "one.mean" not in told
    if change is form:  # what is stale is mended in the same way
        runs_again(finished, 1, 0)


@pytest.mark.xdist_group("faults")
def test_a_clock_that_moved(row: Row, finished: Project) -> None:
    """What is new is told by content, and never by time."""
    before, files = content(finished), list(finished.root.rglob("*"))
    for moved in (-10, 10):
        now = time.time() + moved * 365 * 24 * 3600
        for number, path in enumerate(files):
            os.utime(path, (now + number, now - number))
        row.check(*reversed(call(finished, *RUN)))
    assert content(finished) == before
    later = time.time() + 10 * 365 * 24 * 3600
    edit(finished.notebook("one"), "exact(4.0", "exact(4.1")
    os.utime(finished.notebook("one"), (0, 0))
    os.utime(result_path(job("one"), finished), (later, later))
    assert status(job("one"), finished) == "stale: code cells changed"


# ------------------------------------------------------------- places and words

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.xdist_group("faults")
def test_a_locale_without_unicode(row: Row, finished: Project) -> None:
    before = content(finished)
    add_study(finished, "two", work="raise ValueError('ε must be positive')")
    row.check(*reversed(start(finished, *RUN, env=ASCII)))
    nothing_came_of("two", finished)
    assert content(finished) == before
    add_study(finished, "two")
    runs_again(finished, 1, 1)


@pytest.mark.xdist_group("faults")
def test_a_locale_that_cannot_spell_the_path(row: Row, finished: Project) -> None:
    root = finished.root.with_name("Größe")
    finished.root.rename(root)
    row.check(*reversed(start(Project(root), *RUN, env=ASCII)))
    runs_again(Project(root), 0, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.xdist_group("faults")
def test_nobody_takes_what_is_said(row: Row, finished: Project) -> None:
    command = ["sh", "-c", 'exec "$@" > /dev/full', "sh"]
    row.check(*reversed(start(finished, "verdicts", "--tier", "quick", prefix=command)))
    runs_again(finished, 0, 1)


def plain_papermill(project: Project, *words: str) -> Told:
    """Run the study by papermill alone."""
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "one.ipynb", "../out.ipynb", *words],
        cwd=project.root / "notebooks",
        env=os.environ | {"PYTHONPATH": str(project.root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Told(done.returncode, done.stdout)


@pytest.mark.xdist_group("faults")
def test_a_wrong_value_for_papermill(row: Row, finished: Project) -> None:
    row.check(*reversed(plain_papermill(finished, "-p", "seed", "1.5")))
    assert bundles(read_notebook(finished.root / "out.ipynb"), RUN_MIME) == []
    runs_again(finished, 0, 1)


@pytest.mark.xdist_group("faults")
def test_a_misspelt_name_for_papermill(row: Row, finished: Project) -> None:
    """It runs with the default, and says so in its result."""
    row.check(
        *reversed(plain_papermill(finished, "-p", "sede", "7", "-p", "tier", "quick"))
    )
    (run,) = bundles(read_notebook(finished.root / "out.ipynb"), RUN_MIME)
    assert run["seed"] == 0


# ------------------------------------------------------------- downloads

TEXT = b"to be,\nor not to be"


class Origin(http.server.BaseHTTPRequestHandler):
    """Serves TEXT, and what a bad connection makes of it."""

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        if kind == "silent":
            self.server.wake.wait(60)  # type: ignore[attr-defined]
            return
        if kind == "absent":
            self.send_error(404)
            return
        self.send_response(200)
        if kind != "cut-unnoticed":  # without a length nobody can tell
            self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        text = {"cut": TEXT[:5], "cut-unnoticed": TEXT[:5], "other": TEXT[::-1]}
        self.wfile.write(text.get(kind, TEXT))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The address of a server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        server.wake = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.wake.set()  # type: ignore[attr-defined]
        server.shutdown()


@pytest.mark.parametrize(
    "fault", ["cut", "cut-unnoticed", "other", "absent", "silent", "refused"]
)
def test_a_download_fails(
    row: Row, origin: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there already stays, and no part of a file is left."""
    monkeypatch.setattr(pooch.downloaders, "DEFAULT_TIMEOUT", 0.5)  # it is 30 s
    remote = data.REMOTE["tinyshakespeare"]
    (file,) = remote.files
    good = file._replace(url=f"{origin}/good", sha256=results.sha256(TEXT))
    bad = good._replace(url=f"{origin}/{fault}")
    if fault == "refused":  # as without a network
        bad = good._replace(url="http://127.0.0.1:9/good")
    words = ("data", "tinyshakespeare", "--folder", str(tmp_path))
    (tmp_path / file.path).write_text("of another year", encoding="utf-8")
    files = (bad,)
    table = data.REMOTE | {"tinyshakespeare": remote._replace(files=files)}
    monkeypatch.setattr(data, "REMOTE", table)
    project = Project()
    row.check(*reversed(call(project, *words)))
    assert [path.name for path in tmp_path.iterdir()] == [file.path]
    assert (tmp_path / file.path).read_text("utf-8") == "of another year"
    table["tinyshakespeare"] = remote._replace(files=(good,))
    code, told = call(project, *words)
    assert code == 0
    assert "tinyshakespeare: verified" in told
    assert (tmp_path / file.path).read_bytes() == TEXT
