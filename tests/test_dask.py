"""`--backend dask`: on a real cluster of two processes, which this file starts once."""

from __future__ import annotations

import functools
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
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
    result_path,
    status,
    surroundings,
)

pytestmark = pytest.mark.xdist_group("dask")  # one cluster

JOBS = [Job("one", "quick", seed) for seed in range(2)]


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
    assert run_on(local, "--seeds", "0:2") == 1, "seed 1 has another verdict"
    told = capsys.readouterr().out
    assert "FAILED one--seed1 (quick): cell close" in told
    assert "2 run, 0 fresh, 1 failed" in told
    assert not list(project.results.glob(".shared.*"))

    alone = Project(project.root, tmp_path / "alone")
    list(runner.run(JOBS, alone, workers=2))
    for job in JOBS:
        assert evidence(job, project) == evidence(job, alone)
        assert status(job, project) == status(job, alone)

    assert run_on(local, "--seeds", "0:2") == 1
    assert "0 run, 2 fresh, 1 failed" in capsys.readouterr().out


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
    assert run_on(local, "--seeds", "0:2") == 0
    assert mark.exists()
    assert "2 run, 0 fresh, 0 failed" in capsys.readouterr().out
    assert [status(job, project) for job in JOBS] == ["fresh"] * 2
    assert not list(project.results.glob("quick/.*.partial.ipynb"))
    wait_for(lambda: len(workers(local)) == 2)
    assert workers(local) != before


def test_a_job_that_kills_its_workers_is_given_up(
    local: LocalCluster, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    add_study(project, "one", work=ALWAYS.format(mark=""))
    assert run_on(local, "--seeds", "0:2") == 1
    told = capsys.readouterr().out
    assert "FAILED one (quick): KilledWorker: " in told
    assert status(JOBS[0], project) == "missing"
    assert status(JOBS[1], project) == "fresh"
    assert "2 run, 0 fresh, 1 failed" in told
    wait_for(lambda: len(workers(local)) == 2)


# ------------------------------------------------------------- refused clusters


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 2)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of somebody who listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def page() -> Iterator[str]:
    """The address of somebody who speaks HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as other:
                other.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                other.recv(1024)

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("tcp://127.0.0.1:9", "no answer within 2 s"),
        ("silent", "no answer within 2 s"),
        ("page", "another protocol is spoken there"),
        ("tcp://127.0.0.1", "missing port number in address '127.0.0.1'"),
        ("dusk://127.0.0.1:8786", "unknown address scheme 'dusk'"),
        ("", "missing port number"),
        ("worker", "it is that of a Dask Worker"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_no_scheduler(
    local: LocalCluster,
    project: Project,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    address: str,
    why: str,
) -> None:
    if address in ("silent", "page"):
        address = request.getfixturevalue(address)
    elif address == "worker":
        address = next(iter(local.scheduler_info["workers"]))
    assert cli.main(["run", "--backend", "dask", "--scheduler", address]) == 2
    told = capsys.readouterr().err
    assert "--scheduler must be the address of a Dask scheduler that answers" in told
    assert f"received {address!r}: {why}" in told
    assert not project.results.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--backend dusk", "--backend must be one of loky, dask; received 'dusk'. Did"),
        ("--backend dask", "must be given together; received --backend dask and"),
        (
            "--scheduler tcp://h:1",
            "together; received --backend loky and --scheduler t",
        ),
        ("--backend dask --scheduler tcp://h:1 --jobs 2", "--jobs must be left out"),
    ],
)
def test_bad_call(
    project: Project, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert cli.main(["run", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_dask_is_not_installed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r'pip install -e "\.\[cluster\]"'):
        Cluster("tcp://127.0.0.1:9", JOBS, project)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("workers", "threads", "why"),
    [
        (0, 1, "must have a worker; none came within 2 s"),
        (1, 2, "has 2 threads and must have one"),
    ],
)
def test_workers_that_cannot_run_jobs(
    project: Project, workers: int, threads: int, why: str
) -> None:
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=False,
            protocol="tcp",
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as other,
        pytest.raises(ClusterError, match=why),
    ):
        Cluster(other.scheduler_address, JOBS, project)
    assert not list(project.results.glob(".shared.*"))


def test_a_worker_that_does_not_see_the_project(
    local: LocalCluster, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "touch", lambda *_, **__: None)  # to their eyes
    with pytest.raises(
        ClusterError, match=r"tcp://\S+ does not see \S+/\.shared"
    ) as told:
        Cluster(local.scheduler_address, JOBS, project)
    assert str(told.value).count("\n- tcp://") == 2, "each of them is named"


def test_a_worker_that_does_not_see_the_data(
    local: LocalCluster, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNLIB_DATA", "/nowhere")
    with pytest.raises(ClusterError, match="does not see /nowhere: "):
        Cluster(local.scheduler_address, JOBS, project)


def test_a_worker_with_other_versions(
    local: LocalCluster, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*_: Any) -> dict[str, str]:
        return surroundings(["one"], project) | {"torch": "0.1"}

    monkeypatch.setattr(cluster, "surroundings", other)
    with pytest.raises(ClusterError, match=r"has other versions \(torch 0\.1 -> 2\."):
        Cluster(local.scheduler_address, JOBS, project)


def test_a_worker_that_comes_later_is_looked_at_too(
    local: LocalCluster, project: Project
) -> None:
    with Cluster(local.scheduler_address, JOBS, project) as here:
        here._fault = lambda: "is strange"
        (first, second) = here.run(JOBS)
    for outcome in (first, second):
        assert outcome.error is not None
        assert outcome.error.endswith(" is strange")
        assert outcome.error.startswith("worker tcp://")
