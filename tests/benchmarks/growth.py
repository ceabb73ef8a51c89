"""How time and memory grow with seeds, and time with notebooks."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import throughput
import torch

from lnlib import runner

sys.path.append(str(Path(__file__).resolve().parents[1]))
import studies  # tests/studies.py: a small project to run


def _peak() -> float:
    """Return the most memory that this process has held, in MiB.

    On Linux a process inherits `ru_maxrss` from the one that started it.
    """
    own = Path("/proc/self/status")
    if own.exists():
        (line,) = (v for v in own.read_text().splitlines() if v.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # macOS: bytes


def _train(name: str, R: int) -> tuple[float, float]:
    """Return seconds a step, and the MiB that training takes beyond one replica's."""
    torch.set_num_threads(1)
    throughput.ours(throughput.task(name, 1))(2)
    before = _peak()
    run = throughput.ours(throughput.task(name, R))
    run(2)
    spent = throughput.seconds_a_step(run, 20)
    return spent, _peak() - before


def seeds(counts: tuple[int, ...] = throughput.COUNTS) -> Iterator[dict[str, Any]]:
    """Yield the time of a step and the memory by number of seeds, ours."""
    fresh = multiprocessing.get_context("spawn")  # the peak of a process never falls
    for name in throughput.NETWORKS:
        first = None
        for R in counts:
            with fresh.Pool(1) as pool:
                spent, memory = pool.apply(_train, (name, R))
            first = first or spent
            yield {
                "network": name,
                "seeds": R,
                "time_over_one_seed": spent / first,
                "mib_more": memory,
            }


def notebooks(counts: tuple[int, ...] = (1, 2, 4, 8)) -> Iterator[dict[str, Any]]:
    """Yield the time of our runner by number of small notebooks, two workers."""
    first = None
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            project = studies.make_project(Path(folder) / "project")
            for i in range(count):
                studies.add_study(project, f"study{i}")
            jobs = runner.plan(project, tier="quick")
            start = time.perf_counter()
            outcomes = list(runner.run(jobs, project, workers=2))
            spent = time.perf_counter() - start
        failed = [o.error for o in outcomes if o.error]
        if failed:
            raise RuntimeError(f"the small studies must stand; received {failed[0]}")
        first = first or spent
        yield {"notebooks": count, "seconds": spent, "over_one": spent / first}
