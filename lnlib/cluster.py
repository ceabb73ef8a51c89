"""Run the studies on the workers of a Dask cluster.

The folder of the project must lie on a file system that all workers share: each runs
`lnlib.runner.execute`, as one machine does, and writes its results there.  Jobs go
through Dask's own futures and not through joblib's backend for Dask, which (in 1.6)
waits for ever if a job has killed every worker that it was given to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from lnlib import data
from lnlib.results import Job, Project, surroundings
from lnlib.runner import Outcome, longest_first

PATIENCE = 10  # seconds for a scheduler to answer, and then for a first worker


class ClusterError(ValueError):
    """A cluster cannot run the studies as this machine would."""


class Cluster:
    """A Dask cluster whose workers see the project, and have its libraries."""

    def __init__(self, address: str, jobs: Sequence[Job], project: Project) -> None:
        """Connect to the scheduler at `address`, and look at each worker.

        Raises:
            ClusterError: Dask is not installed, no scheduler answers, there is no
                worker, or one cannot run the jobs: the message says which, and why.
        """
        try:
            from distributed import Client, Security, rpc
        except ImportError as error:
            raise ClusterError(
                f"--backend dask must have Dask installed; received: {error}. "
                'Install it: pip install -e ".[cluster]"'
            ) from None

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # outcomes tell all
        _expect_scheduler(address, rpc, Security().get_connection_args("client"))
        self.client = Client(address, timeout=PATIENCE, set_as_default=False)
        self._token = project.results / f".shared.{uuid.uuid4().hex[:8]}"
        self._project = project
        try:
            self._token.parent.mkdir(parents=True, exist_ok=True)
            self._token.touch()
            self._fault = _fault_finder(self._token, jobs, project)
            self._look_at_workers(address)
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        """How many jobs run at a time."""
        return max(1, len(self.client.nthreads()))

    def _look_at_workers(self, address: str) -> None:
        try:
            self.client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise ClusterError(
                f"the cluster at {address} must have a worker; none came within "
                f"{PATIENCE} s. Start one: dask worker {address} --nthreads 1"
            ) from None
        faults = {
            worker: f"has {threads} threads and must have one, as a process runs one "
            "job at a time: start it with --nthreads 1"
            for worker, threads in self.client.nthreads().items()
            if threads != 1
        }
        found = self.client.run(self._fault, on_error="return")
        faults |= {worker: str(fault) for worker, fault in found.items() if fault}
        if faults:
            told = "".join(f"\n- {worker} {why}" for worker, why in faults.items())
            raise ClusterError(f"every worker must be able to run the studies:{told}")

    def run(self, jobs: Sequence[Job], force: bool = False) -> Iterator[Outcome]:
        """Execute jobs on the workers, the longest first; yield as they end.

        The job of a worker that dies goes to another one.  A job that has taken
        several workers with it is given up, and its outcome says so.
        """
        from distributed import as_completed

        longest = longest_first(jobs, self._project)
        group = f"lnlib-{uuid.uuid4().hex[:8]}"  # Dask queues a large group of tasks
        futures = self.client.map(
            _executor(self._fault, self._project, force),
            [asdict(job) for job in longest],
            key=[(group, str(job)) for job in longest],
        )
        job_of = dict(zip(futures, longest, strict=True))
        for future in as_completed(futures, loop=self.client.loop):
            try:
                yield Outcome(job_of[future], *future.result())
            except Exception as error:  # of the worker, of the way to it
                yield Outcome(job_of[future], f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Leave the cluster; it drops the jobs that have not begun."""
        self._token.unlink(missing_ok=True)
        self.client.close()

    def __enter__(self) -> Self:
        """Return the cluster."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it."""
        self.close()


def _expect_scheduler(address: str, rpc: Any, how: dict[str, Any]) -> None:
    """Raise ClusterError unless a scheduler answers at `address`.

    This comes before a client is made: one that reached nobody cannot be closed, and
    may hang when it is collected.
    """

    async def kind() -> str:
        async with (
            asyncio.timeout(PATIENCE),
            rpc(address, connection_args=how) as there,
        ):
            return str((await there.identity())["type"])

    try:
        found = asyncio.run(kind())
        fault = "" if found == "Scheduler" else f"it is that of a Dask {found}"
    except MemoryError:  # a text that was read as sizes
        fault = "another protocol is spoken there"
    except (OSError, TypeError, ValueError) as error:
        fault = str(error) or f"no answer within {PATIENCE} s"
    if fault:
        raise ClusterError(
            "--scheduler must be the address of a Dask scheduler that answers, such as "
            f"tcp://10.0.0.1:8786; received {address!r}: {fault}"
        )


def _fault_finder(
    token: Path, jobs: Sequence[Job], project: Project
) -> Callable[[], str]:
    """Return a function that says what keeps the worker that calls it from the jobs.

    It is defined in here, and holds no object of lnlib, so that it travels whole: the
    worker may not have lnlib.
    """
    studies = sorted({job.study for job in jobs})
    cuda = any(job.device == "cuda" for job in jobs)
    root, output = str(project.root), str(project.results)
    paths = [str(token), *filter(None, [os.environ.get(data.VARIABLE)])]
    here = surroundings(studies, project)

    def fault() -> str:
        from pathlib import Path

        for path in paths:
            if not Path(path).exists():
                return (
                    f"does not see {path}: the project, its results and LNLIB_DATA "
                    "must lie on a file system that all workers share"
                )
        try:
            from lnlib.results import Project, changes, surroundings

            there = surroundings(studies, Project(Path(root), Path(output)))
        except (ImportError, OSError) as error:
            return (
                f"cannot read the project in {root} ({error}): start it there, by "
                ".venv/bin/dask worker"
            )
        if differ := changes(here, there):
            return f"has other versions ({differ}): install requirements.lock there"
        if cuda:
            import torch

            if not torch.cuda.is_available():
                return "has no CUDA device; use --device cpu"
        return ""

    return fault


def _executor(
    fault: Callable[[], str], project: Project, force: bool
) -> Callable[[dict[str, Any]], tuple[str | None, float]]:
    """Return a function that executes a job on a worker: what went wrong, and seconds.

    It travels whole, as it passes the scheduler, which may not have lnlib; the worker
    may have come after all were looked at.
    """
    root, output = str(project.root), str(project.results)
    folder = os.environ.get(data.VARIABLE, "")

    def execute(values: dict[str, Any]) -> tuple[str | None, float]:
        from pathlib import Path

        from distributed import get_worker

        if why := fault():
            return f"worker {get_worker().address} {why}", 0.0

        from lnlib import data, runner
        from lnlib.results import Job, Project

        there = Project(Path(root), Path(output))
        with runner.environment({data.VARIABLE: folder}):
            outcome = runner.execute(Job(**values), there, force=force)
        return outcome.error, outcome.seconds

    return execute
