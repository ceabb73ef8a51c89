"""Run the studies, show their verdicts, fetch their data.

Exit status: 0 when all is well, 1 when a study fails or has no result, or when
something cannot be written, 2 for a bad call or project, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from joblib import cpu_count
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from lnlib import data, runner
from lnlib.choices import choose
from lnlib.claims import MAX_SEED, TIERS
from lnlib.cluster import Cluster
from lnlib.results import (
    Job,
    Project,
    ProjectError,
    Result,
    read_result,
    result_path,
    standing,
    status,
)
from lnlib.stability import (
    Stability,
    load,
    measure,
    parse_seeds,
    save,
    tell_seeds,
    wanted,
)

TIER: dict[str, Any] = {"default": "book", "help": f"{', '.join(TIERS)} (book)"}
RESULTS: dict[str, Any] = {"type": Path, "help": "their folder (_build/results)"}
SEEDS: dict[str, Any] = {"help": "many base seeds, such as 0:20 or 3,7,10:12"}
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "run": {
        "--tier": TIER,
        "--seed": {"help": f"base seed, at most {MAX_SEED} (0)"},
        "--seeds": SEEDS,
        "--control": {"default": "none", "help": "name of a control, all, none (none)"},
        "--device": {"default": "cpu", "help": "cpu, cuda (cpu)"},
        "--jobs": {"help": "processes (one per core)"},
        "--backend": {"default": "loky", "help": "loky: this machine; dask (loky)"},
        "--scheduler": {"metavar": "ADDRESS", "help": "of a Dask cluster"},
        "--results": RESULTS,
        "--force": {"action": "store_true", "help": "run the fresh ones, too"},
    },
    "verdicts": {
        "--tier": TIER,
        "--seeds": SEEDS | {"help": "count over seeds how often each one came out"},
        "--json": {"type": Path, "metavar": "FILE", "help": "write the counts there"},
        "--results": RESULTS,
    },
    "data": {"--folder": {"type": Path, "help": "where to keep them (user's cache)"}},
}
Run = Callable[[list[Job]], Iterator[runner.Outcome]]
COLOURS = {"holds": "green", "fails": "red", "conditional": "yellow"}

console = Console(highlight=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    parser = argparse.ArgumentParser("python -m lnlib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("run", "execute the notebooks whose results are stale"),
        ("verdicts", "show the verdicts of the executed notebooks"),
        ("data", "fetch and verify data sets"),
    ):
        command = commands.add_parser(name, help=what, allow_abbrev=False)
        command.add_argument("names", nargs="*", metavar="NAME", help="(all)")
        for option, about in OPTIONS[name].items():
            command.add_argument(option, **about)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale may lack a character
            stream.reconfigure(errors="backslashreplace")
    call, unknown = parser.parse_known_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    check = {"run": check_run, "verdicts": check_verdicts, "data": check_data}
    try:
        try:
            for word in unknown:
                choose("option", word.split("=")[0], OPTIONS[call.command])
            work = check[call.command](call)
        except ValueError as error:
            print(f"python -m lnlib {call.command}: {error}", file=sys.stderr)
            return 2
        return work()
    except KeyboardInterrupt:
        say("interrupted; finished studies are kept: run again to go on")
        return 130
    except OSError as error:  # of standard output, say
        print(f"python -m lnlib {call.command}: {error}", file=sys.stderr)
        return 1


def whole_number(name: str, text: str, least: int) -> int:
    """Return the number of an option, or raise ValueError."""
    if not (text.isdecimal() and int(text) >= least):
        raise ValueError(f"{name} must be a whole number >= {least}; received {text!r}")
    return int(text)


def seeds_of(call: argparse.Namespace) -> tuple[int, ...]:
    """Return the seeds of a run; raise ValueError if they are no seeds, or doubled."""
    if call.seeds is None:
        return (whole_number("--seed", "0" if call.seed is None else call.seed, 0),)
    if call.seed is not None:
        raise ValueError(
            "--seed and --seeds must not be given together; received "
            f"--seed {call.seed} --seeds {call.seeds}: leave one out"
        )
    return parse_seeds(call.seeds)


def say(line: str) -> None:
    """Print a line as it is."""
    console.print(line, markup=False)


def project_of(call: argparse.Namespace) -> Project:
    """Return the project with the results folder of the call."""
    if call.results and call.results.exists() and not call.results.is_dir():
        raise ValueError(f"--results must be a folder; received {call.results}")
    project = Project(output=call.results and call.results.absolute())
    for path in (project.root, project.results):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding()
            raise ValueError(
                f"a path must be text in the encoding of the locale, {encoding}; "
                f"received {str(path)!r}. Set PYTHONUTF8=1"
            ) from None
    return project


# ------------------------------------------------------------- run


def check_run(call: argparse.Namespace) -> Callable[[], int]:
    """Return the work of a call that is in order, before any kernel is started.

    Raises:
        ValueError: the call or the project is at fault.
    """
    project = project_of(call)
    choose("--backend", call.backend, ("loky", "dask"))
    if (call.backend == "dask") != (call.scheduler is not None):
        raise ValueError(
            "--backend dask and --scheduler ADDRESS must be given together; received "
            f"--backend {call.backend} and --scheduler {call.scheduler}"
        )
    if call.backend == "dask" and call.jobs is not None:
        raise ValueError(
            "--jobs must be left out with --backend dask, which has as many as the "
            f"cluster has workers; received {call.jobs!r}"
        )
    jobs_at_once = str(cpu_count()) if call.jobs is None else call.jobs
    workers = whole_number("--jobs", jobs_at_once, 1)
    jobs = runner.plan(
        project,
        call.names,
        tier=call.tier,
        seeds=seeds_of(call),
        control=call.control,
        device=call.device,
    )
    if folder := os.environ.get(data.VARIABLE):
        if not Path(folder).is_dir():
            raise ValueError(f"{data.VARIABLE} must name a folder; received {folder!r}")
        os.environ[data.VARIABLE] = str(
            Path(folder).resolve()
        )  # kernels live elsewhere
    if call.backend == "dask":
        cluster = Cluster(call.scheduler, jobs, project)
        return partial(run_on_cluster, jobs, project, cluster, call.force)
    if call.device == "cuda":
        import torch  # takes seconds

        if not torch.cuda.is_available():
            raise ValueError("--device cuda must find a CUDA device; use --device cpu")
    run = partial(runner.run, project=project, workers=workers, force=call.force)
    return partial(run_studies, jobs, project, run, workers, call.force)


def run_on_cluster(
    jobs: list[Job], project: Project, cluster: Cluster, force: bool
) -> int:
    """Bring results up to date on a Dask cluster, and leave it."""
    with cluster:
        run = partial(cluster.run, force=force)
        return run_studies(jobs, project, run, cluster.workers, force)


def run_studies(
    jobs: list[Job], project: Project, run: Run, workers: int, force: bool
) -> int:
    """Bring results up to date, and hand them to the book."""
    due, done = [], []
    for job in jobs:
        state, result = standing(job, project)
        if state.startswith(runner.ENDED) and not force:
            error = runner.objection(job, state, result, project)
            done.append(runner.Outcome(job, error))
        else:
            due.append(job)
            discarded = state.startswith(("stale", "damaged"))
            say(f"{job}: {state}{' (discarded)' * discarded}")
    done += follow(due, project, run, workers)
    failed = {outcome.job for outcome in done if outcome.error}
    for outcome in done:
        if outcome.error:
            say(f"FAILED {outcome.job}: {outcome.error}")
    for job in jobs if due else ():  # else no time has passed
        if job not in failed and (state := status(job, project)) != "fresh":
            say(f"FAILED {job}: {state} when its run had ended. Run it again.")
            failed.add(job)
    good = [job for job in jobs if job not in failed]
    filled = bool(project.output) or fill_book(good, project)
    say(f"{len(due)} run, {len(jobs) - len(due)} fresh, {len(failed)} failed")
    return 0 if filled and not failed else 1


def fill_book(jobs: list[Job], project: Project) -> bool:
    """Put those results into the book's cache that are at default parameters.

    Say whether it can be written.
    """
    try:
        for tier in runner.BOOK_TIERS:
            if due := [job for job in jobs if job == Job(job.study, tier)]:
                cache = runner.book_cache(project, tier)
                for job in due:
                    runner.cache_result(job, cache, project)
    except ProjectError as error:  # the cache's name depends on every notebook
        say(f"nothing is handed to the book: {error}")
    except OSError as error:
        say(f"the results stand, and the book cannot take them: {error}")
        return False
    return True


class TimeLeft(ProgressColumn):
    """The time until the field `ends` of a task, on the monotonic clock."""

    def render(self, task: Task) -> Text:
        """Return minutes and seconds."""
        left = max(0, round(task.fields["ends"] - time.monotonic()))
        return Text(f"about {left // 60}:{left % 60:02d} left")


def follow(
    jobs: list[Job], project: Project, run: Run, workers: int
) -> list[runner.Outcome]:
    """Run jobs, with a progress bar on a terminal and a line for each one elsewhere."""
    expected = {job: runner.expected_seconds(job, project) for job in jobs}
    work = max([*expected.values(), sum(expected.values()) / workers], default=0.0)
    ends = time.monotonic() + work
    columns = (TextColumn("studies"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    done: list[runner.Outcome] = []
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(jobs), ends=ends)
        for outcome in run(jobs):
            done.append(outcome)
            ends += (outcome.seconds - expected[outcome.job]) / workers
            bar.update(task, advance=1, ends=ends)
            how = "failed" if outcome.error else "done"
            told = f"{outcome.job}: {how} in {outcome.seconds:.0f} s"
            say(f"[{len(done)}/{len(jobs)}] {told}")
    return done


# ------------------------------------------------------------- verdicts and data


def check_verdicts(call: argparse.Namespace) -> Callable[[], int]:
    """Return the work of a call that is in order; raise ValueError otherwise."""
    project = project_of(call)
    jobs = runner.plan(project, call.names, tier=call.tier)
    if call.seeds is not None:
        seeds = parse_seeds(call.seeds)
        if call.json:
            if not call.json.parent.is_dir():
                raise ValueError(
                    f"--json must be a file in a folder; received {call.json}"
                )
            load(call.json)
        studies = [job.study for job in jobs]
        return partial(show_stability, studies, call.tier, seeds, project, call.json)
    if call.json:
        raise ValueError("--json must come with --seeds, whose counts it takes")
    return partial(show_verdicts, jobs, project)


def show_verdicts(jobs: list[Job], project: Project) -> int:
    """Print claims with verdicts and stated evidence, as the executed notebooks say."""
    table = Table("claim", "verdict", "expected", "evidence", show_lines=True)
    told = []
    for job in jobs:
        state = status(job, project)
        if state == "fresh":
            add_rows(table, read_result(result_path(job, project), project))
        else:
            again = f"python -m lnlib run {job.study} --tier {job.tier}"
            again += " --force" * state.startswith("failed: ")
            told.append(f"{job} is {state}\n  no verdict; run: {again}")
    Console(width=None if console.is_terminal else 120).print(table)
    for line in told:
        say(line)
    return 1 if told else 0


def add_rows(table: Table, result: Result) -> None:
    """Add one row for each claim of a result."""
    for bundle in result.bundles:
        lines = [
            f"{e['name']} {e['estimate']:.3g} [{e['low']:.3g}, {e['high']:.3g}], "
            f"predicted {e['relation']} {e['bound']}: {e['outcome']}"
            for e in bundle["evidence"]
            if e["kind"] == "stated"
        ]
        verdict = Text(bundle["verdict"], COLOURS.get(bundle["verdict"], ""))
        expected = result.run["expected"][bundle["claim"]]
        table.add_row(bundle["claim"], verdict, expected, Text("\n".join(lines)))


def show_stability(
    studies: list[str],
    tier: str,
    seeds: tuple[int, ...],
    project: Project,
    file: Path | None,
) -> int:
    """Print for each claim how many seeds gave its verdict; write it into `file`."""
    found: dict[str, Stability] = {}
    told = []
    for study in studies:
        record = project.record(study)
        found[study], lacking = measure(record, tier, seeds, project)
        for why, where in lacking.items():
            again = f"python -m lnlib run {study} --tier {tier}"
            told.append(
                f"{study} ({tier}) has no result at seeds {tell_seeds(where)}: {why}\n"
                f"  run: {again} --seeds {tell_seeds(where)}"
            )
    counted = [(found[s], c) for s in studies for c in project.record(s).claims]
    unjudged = [claim.id for one, claim in counted if not one.counts(claim)]
    table = Table("claim", "expected", "seeds", "other outcomes", show_lines=True)
    for one, claim in sorted(counted, key=lambda pair: pair[0].stable(pair[1])):
        if claim.id not in unjudged:
            count = f"{one.given(claim)} of {len(seeds)}"
            style = "" if one.stable(claim) else "red"
            others = Text(one.others(claim))
            table.add_row(claim.id, wanted(claim, tier), Text(count, style), others)
    Console(width=None if console.is_terminal else 120).print(table)
    if unjudged:
        say(f"not judged at tier {tier}: {', '.join(unjudged)}")
    for line in told:
        say(line)
    if file:
        save(found, file)
    return 1 if any("no result" in one.others(claim) for one, claim in counted) else 0


def check_data(call: argparse.Namespace) -> Callable[[], int]:
    """Return the work of a call that is in order; raise ValueError otherwise."""
    if call.folder and not call.folder.is_dir():
        raise ValueError(f"--folder must be a folder; received {call.folder}")
    names = [choose("data set", name, data.names()) for name in call.names]
    return partial(fetch_data, names or data.names(), call.folder)


def fetch_data(names: list[str], folder: Path | None) -> int:
    """Fetch data sets, verify their checksums and say where they are."""
    failed = False
    for name in names:
        try:
            where = ", ".join(map(str, data.fetch(name, folder)))
            say(f"{name}: verified, {where or 'comes with scikit-learn'}")
        except data.DataError as error:
            failed = True
            say(f"FAILED {name}: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
