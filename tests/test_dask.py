"""`--backend dask`: on a real cluster of two processes, which this file starts once."""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import LocalCluster
from studies import MEASURE, add_study, make_project

from lnlib import __main__ as cli
from lnlib import cluster, runner
from lnlib.claims import RUN_MIME, VERDICT_MIME
from lnlib.cluster import Cluster, ClusterError
from lnlib.results import (
    Job,
    Project,
    bundles,
    failed_path,
    read_notebook,
    read_result,
    result_path,
    status,
)

pytestmark = pytest.mark.xdist_group("dask")  # one cluster

JOBS = [Job("one", "quick", seed) for seed in range(3)]
NOWHERE = "tcp://127.0.0.1:9"  # the port that discards; nobody listens


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    """A cluster of two processes with one thread each."""
    # A task is given up at the second death of its worker, not at the fourth.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as started,
    ):
        yield started


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project with one study, which the commands of this process use."""
    project = make_project(tmp_path / "project")
    add_study(project, "one")
    monkeypatch.setattr(cli, "Project", functools.partial(Project, project.root))
    before = signal.getsignal(signal.SIGTERM)
    yield project
    signal.signal(signal.SIGTERM, before)


def run_on(local: LocalCluster, *words: str) -> int:
    """Run studies on the cluster; return the exit status."""
    where = ["--backend", "dask", "--scheduler", local.scheduler_address]
    return cli.main(["run", "--tier", "quick", *where, *words])


def evidence(job: Job, project: Project) -> Any:
    """Return what a result or a failure says, but for times."""
    path = result_path(job, project)
    notebook = read_notebook(path if path.exists() else failed_path(job, project))
    (run,) = bundles(notebook, RUN_MIME)
    kept = {k: v for k, v in run.items() if not k.endswith("seconds")}
    return kept, bundles(notebook, VERDICT_MIME), notebook.metadata.lnlib.inputs


# ------------------------------------------------------------- the same results


def test_results_are_those_of_one_machine(
    local: LocalCluster,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("LNLIB_DATA", str(tmp_path))
    work = f"import os\nassert os.environ['LNLIB_DATA'] == {str(tmp_path)!r}"
    measure = MEASURE.replace("exact(offset", "exact(float(seed == 1)")
    add_study(project, "one", work=work, measure=measure)
    assert run_on(local, "--seeds", "0:3") == 1, "seed 1 has another verdict"
    told = capsys.readouterr().out
    assert "FAILED one--seed1 (quick): cell close" in told
    assert "3 run, 0 fresh, 1 failed" in told
    assert not list(project.results.glob(".shared.*"))

    alone = Project(project.root, tmp_path / "alone")
    list(runner.run(JOBS, alone, workers=1))
    for job in JOBS:
        assert evidence(job, project) == evidence(job, alone)
        assert status(job, project) == status(job, alone)

    assert run_on(local, "--seeds", "0:3") == 1
    assert "0 run, 3 fresh, 1 failed" in capsys.readouterr().out


# ------------------------------------------------------------- lost workers

# The kernel's parent is the worker.
KILL = "import os, pathlib, signal\nmark = pathlib.Path({mark!r})\n"
ONCE = KILL + (
    "if seed == 0 and not mark.exists():\n"
    "    mark.touch()\n    os.kill(os.getppid(), signal.SIGKILL)"
)
ALWAYS = KILL + "if seed == 0:\n    os.kill(os.getppid(), signal.SIGKILL)"


def workers(local: LocalCluster) -> set[int]:
    """Return the process ids of the workers."""
    return {worker.pid for worker in local.workers.values() if worker.pid}


def wait_for(what: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"it did not come to {what}"
        time.sleep(0.1)


def test_a_lost_worker_is_replaced(
    local: LocalCluster, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = project.root / "killed"
    add_study(project, "one", work=ONCE.format(mark=str(mark)))
    before = workers(local)
    assert len(before) == 2
    assert run_on(local, "--seeds", "0:3") == 0
    assert mark.exists()
    assert "3 run, 0 fresh, 0 failed" in capsys.readouterr().out
    assert [status(job, project) for job in JOBS] == ["fresh"] * 3
    assert not list(project.results.glob("quick/.*.partial.ipynb"))
    wait_for(lambda: len(workers(local)) == 2)
    assert workers(local) != before


def test_a_job_that_kills_its_workers_is_given_up(
    local: LocalCluster, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    add_study(project, "one", work=ALWAYS.format(mark=""))
    assert run_on(local, "--seeds", "0:3") == 1
    told = capsys.readouterr().out
    assert "FAILED one (quick): KilledWorker: " in told
    assert status(JOBS[0], project) == "missing"
    assert "1 failed" in told
    wait_for(lambda: len(workers(local)) == 2)
