"""Run the studies: execute the notebooks whose results are stale, by papermill.

A run counts only if papermill returned and the study closed.  Until then its notebook
has another name, so that an interrupted run leaves nothing that looks like a result.
"""

from __future__ import annotations

import ast
import fcntl
import json
import os
import resource
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from joblib import Parallel, delayed

from lnlib.choices import choose
from lnlib.claims import DEVICES, RUN_MIME, TIERS, StudyError, check_seed
from lnlib.results import (
    DEFAULTS,
    DamagedResult,
    Job,
    Project,
    ProjectError,
    Result,
    bundles,
    code_cells,
    failed_path,
    inputs,
    read_notebook,
    read_result,
    result_path,
    seal,
    sha256,
    standing,
    status,
    surprises,
    surroundings,
    verdicts_of,
)

BUDGETS = {"quick": 45, "book": 180, "full": 900}  # seconds of one core
LIMITS = {tier: 10 * seconds for tier, seconds in BUDGETS.items()}  # a hung kernel
BOOK_TIERS = {"book": "", "quick": "test"}  # where below _build the book has its cache
ENDED = ("fresh", "failed: ")  # a study that closed and failed would fail again
LOST = "a process was killed from outside, or out of memory; try --jobs 1"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `error` is None for a result that stands."""

    job: Job
    error: str | None = None
    seconds: float = 0.0


def plan(
    project: Project,
    studies: Sequence[str] = (),
    *,
    tier: str = "book",
    seeds: Sequence[int] = (0,),
    control: str = "none",
    device: str = "cpu",
) -> list[Job]:
    """Return the jobs of a call; control "all" means none and each one of a study.

    No study named means all of them, or all that have the control.

    Raises:
        ValueError: an unknown name or value; the valid ones are listed.
        ProjectError: a notebook does not fit the registry, or lacks a parameter.
    """
    known = project.studies()
    choose("tier", tier, TIERS)
    choose("device", device, DEVICES)
    for seed in seeds:
        check_seed(seed)
    chosen = [choose("study", name, known) for name in studies] or known
    controls = {name: ["none", *project.record(name).controls] for name in chosen}
    valid = ["all", *dict.fromkeys(c for own in controls.values() for c in own)]
    choose("control", control, valid)
    jobs = []
    for name, own in controls.items():
        if studies and control != "all":
            choose(f"control of {name}", control, own)
        _check_parameters(project.notebook(name))
        names = [c for c in own if control in (c, "all")]
        jobs += [Job(name, tier, s, c, device) for s in seeds for c in names]
    return jobs


def _check_parameters(path: Path) -> None:
    """Raise ProjectError unless the notebook has the four parameters, at defaults.

    papermill alone only warns of a misspelt parameter, and runs the default.
    """
    tagged = [
        cell.source
        for cell in code_cells(read_notebook(path))
        if "parameters" in cell.metadata.get("tags", [])
    ]
    found = {}
    with suppress(SyntaxError, ValueError):
        for line in ast.parse("\n".join(tagged)).body:
            name, value = ast.unparse(line).split(" = ")
            found[name] = ast.literal_eval(value)
    if len(tagged) != 1 or found != DEFAULTS:
        raise ProjectError(
            f"{path} must have one cell tagged parameters, which sets {DEFAULTS}; "
            f"received {len(tagged)} with {found}"
        )


# ------------------------------------------------------------- execution


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which kernels inherit, and take them back."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _deadline(seconds: float) -> Iterator[threading.Event]:
    """Kill the processes started inside when the time is up, or when the block ends."""
    here = psutil.Process()
    before = set(here.children(recursive=True))
    expired = threading.Event()

    def kill() -> None:
        for process in set(here.children(recursive=True)) - before:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def expire() -> None:
        expired.set()
        kill()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
        kill()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the file `path` alone; the system releases it when a process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clocks() -> tuple[float, float]:
    """Return the wall clock and the processor time of finished children, in s."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic(), used.ru_utime + used.ru_stime


def execute(
    job: Job, project: Project, *, limit: float | None = None, force: bool = False
) -> Outcome:
    """Bring the result of a job up to date, and say whether it stands.

    A fresh result is kept; with `force`, until its study has run again, or failed.  So
    is the failure of a study that closed with these inputs.  Any other is discarded
    first.  `limit` is the longest a run may take, in seconds.  A process executes one
    job at a time.
    """
    path = result_path(job, project)
    started = time.monotonic()
    error = None
    try:
        state, result = standing(job, project)
        if force or not state.startswith(ENDED):  # else nothing is written
            path.parent.mkdir(parents=True, exist_ok=True)
            with _lock(path.with_name(f".{path.stem}.lock")):  # a second run waits
                state, result = standing(job, project)
                if state != "fresh":
                    path.unlink(missing_ok=True)
                if force or not state.startswith(ENDED):
                    state, result = "run", None
                    error = _execute(job, project, path, limit or LIMITS[job.tier])
        if error is None:
            error = objection(job, state, result, project)
    except OSError as trouble:
        error = _no_room(trouble, path)
    except DamagedResult as trouble:  # another run has discarded it just now
        error = str(trouble)
    return Outcome(job, error, time.monotonic() - started)


def objection(
    job: Job, state: str, result: Result | None, project: Project
) -> str | None:
    """Say why a job that has ended has no result that counts, or None if it has one.

    `state` and `result` are as :func:`lnlib.results.standing` returns them; without a
    result it is read.
    """
    if state.startswith("failed: "):
        return (
            f"{state.removeprefix('failed: ')}\nIts traceback is in "
            f"{failed_path(job, project)}; --force runs it again"
        )
    result = result or read_result(result_path(job, project), project)
    return "; ".join(surprises(result, project.record(job.study))) or None


def _execute(job: Job, project: Project, path: Path, limit: float) -> str | None:
    """Run the notebook and put its sealed result at `path`; return what went wrong."""
    import papermill  # takes a moment

    from lnlib.engine import Engine

    source = project.notebook(job.study)
    failed = failed_path(job, project)
    for old in [failed, *path.parent.glob(f".{path.stem}.*.partial.ipynb")]:
        old.unlink(missing_ok=True)
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial.ipynb")
    settings = dict.fromkeys(THREADS, "1")
    paths = [str(project.root), os.environ.get("PYTHONPATH", "")]
    settings["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    settings["LNLIB_REGISTRY"] = str(project.registry)
    start = _clocks()
    try:
        about = asdict(job) | {"inputs": inputs(job, project)}
        with environment(settings), _deadline(limit) as expired:
            papermill.execute_notebook(
                source,
                partial,
                job.parameters,
                engine_name=Engine.__name__,
                kernel_name="python3",
                progress_bar=False,
                cwd=source.parent,
                execution_timeout=int(limit) + 1,
                extra_arguments=["--log-level=ERROR"],  # else it warns of TCP
            )
        if expired.is_set():  # while there was no kernel to kill
            raise TimeoutError
        seconds, cpu = (round(b - a, 1) for a, b in zip(start, _clocks(), strict=True))
        about |= {"seconds": seconds, "cpu_seconds": cpu}
        seal(partial, about | _closed_as(job, partial, project))
        partial.replace(path)
    except Exception as error:  # whatever it is, there is no result
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            return _no_room(error, path)
        if not partial.exists():
            return f"did not start: {_reason(error)}"
        if not (expired.is_set() or type(error).__name__ == "DeadKernelError"):
            path.unlink(missing_ok=True)  # a forced run contradicts it
        why = f"ran longer than {limit:g} s" if expired.is_set() else _reason(error)
        why = f"{_stopped_at(partial)}: {why}"
        if getattr(error, "ename", "") == StudyError.__name__:
            with suppress(ValueError):  # it did not close: nothing was judged
                seal(
                    partial, about | {"error": why} | _closed_as(job, partial, project)
                )
        partial.replace(failed)
        return f"{why}\nIts traceback is in {failed}"
    finally:
        partial.unlink(missing_ok=True)
    return None


def _closed_as(job: Job, path: Path, project: Project) -> dict[str, Any]:
    """Return what a study says of its run, if it closed as this job."""
    notebook = read_notebook(path)
    verdicts_of(notebook, project)
    run = bundles(notebook, RUN_MIME)[0]
    for name, value in asdict(job).items():
        if run[name] != value:
            raise ProjectError(f"{name} must be {value!r}; it ran as {run[name]!r}")
    return {"versions": run["versions"], "commit": run["commit"]}


def _reason(error: Exception) -> str:
    """Return an error of papermill in the words of the cell that raised it."""
    if type(error).__name__ == "DeadKernelError":
        return "the kernel died: killed from outside, or out of memory"
    name = getattr(error, "ename", type(error).__name__)
    why = str(getattr(error, "evalue", error)) or "it gave no reason; out of memory?"
    return f"{name}: {why}"


def _no_room(error: OSError, path: Path) -> str:
    """Say that a result could not be written, and what to do."""
    return (
        f"{_reason(error)}\nThe folder {path.parent} must be there, be writable and "
        "have room. Mend it, or name another with --results"
    )


def _stopped_at(path: Path) -> str:
    """Name the last cell that was started in a failed run."""
    cells = code_cells(read_notebook(path))
    started = [c for c in cells if c.metadata.get("papermill", {}).get("start_time")]
    if not started:
        return "before the first cell"
    first_line = [*started[-1].source.splitlines(), ""][0]
    return f"cell {started[-1].get('id')} ({first_line})"


def expected_seconds(job: Job, project: Project) -> float:
    """Return how long the job took the last time, or else its budget."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        last = json.loads(result_path(job, project).read_text("utf-8"))
        return float(last["metadata"]["lnlib"]["seconds"])
    return BUDGETS[job.tier] / (1 if job.control == "none" else 2)


def longest_first(jobs: Iterable[Job], project: Project) -> list[Job]:
    """Return jobs in the order in which to start them, so that none ends alone."""
    return sorted(jobs, key=lambda job: -expected_seconds(job, project))


def run(
    jobs: Iterable[Job], project: Project, *, workers: int, force: bool = False
) -> Iterator[Outcome]:
    """Execute jobs in `workers` processes, the longest first; yield as they end.

    On other machines :mod:`lnlib.cluster` does the same.  When one of the processes is
    killed, joblib ends the others, too.
    """
    longest = longest_first(jobs, project)
    workers = max(1, min(workers, len(longest)))
    tasks = (delayed(execute)(job, project, force=force) for job in longest)
    how: dict[str, Any] = {"return_as": "generator_unordered", "batch_size": 1}
    left = [*longest]
    try:
        for outcome in Parallel(n_jobs=workers, **how)(tasks):
            left.remove(outcome.job)
            yield outcome
    except BrokenProcessPool:
        for job in left:
            if status(job, project) != "fresh":
                yield Outcome(job, LOST)


# ------------------------------------------------------------- the book's cache


def book_cache(project: Project, tier: str = "book") -> Path:
    """Return the folder of Jupyter Book's cache for the present lnlib and libraries.

    Its own key is the code cells alone: a change elsewhere must lead elsewhere.

    Raises:
        ValueError: the book has no pages of that tier.
    """
    below = BOOK_TIERS[choose("tier of the book", tier, BOOK_TIERS)]
    digest = sha256(json.dumps(surroundings(project.studies(), project)))[:16]
    return project.root / "_build" / below / ".jupyter_cache" / digest


def cache_result(job: Job, cache: Path, project: Project) -> None:
    """Put the outputs of a fresh result into the book's cache.

    They go into a copy of the source notebook: the cache knows a notebook by its code
    cells with their metadata, and papermill changes both.

    Raises:
        ValueError: the job is not the default one, or its result is not fresh.
        OSError: the cache cannot be written.
    """
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    if job != Job(job.study, job.tier):
        raise ValueError(f"the book shows runs at default parameters; received {job}")
    state = status(job, project)
    if state != "fresh":
        raise ValueError(f"the result of {job} must be fresh, is {state}")
    source = project.notebook(job.study)
    notebook = read_notebook(source)
    done = read_notebook(result_path(job, project))
    executed = {cell.id: cell for cell in done.cells}
    for count, cell in enumerate(code_cells(notebook), 1):
        cell.outputs, cell.execution_count = executed[cell.id].outputs, count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    notebook.metadata["language_info"] = done.metadata.language_info
    data = {
        "execution_seconds": done.metadata.lnlib.seconds,
        "ended": done.metadata.papermill.end_time,
    }
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache / ".lock"):  # jupyter-cache has none
        try:
            get_cache(cache).cache_notebook_bundle(
                CacheBundleIn(notebook, str(source), data=data),
                overwrite=True,
                check_validity=False,
            )
        except Exception as error:  # its database has errors of its own
            raise OSError(f"{cache}: {error}") from error
