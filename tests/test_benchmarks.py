"""The benchmarks compare like with like; how fast anything is, they alone say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from studies import HERE, add_study, make_project

from lnlib import runner
from lnlib.results import Project

FOLDER = HERE / "tests" / "benchmarks"
NETWORKS = ("MLP", "RNN", "transformer", "CNN")


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that compares ways to train replicas."""
    monkeypatch.syspath_prepend(FOLDER)
    import throughput

    return throughput


@pytest.fixture
def staleness(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that counts what a change makes stale."""
    monkeypatch.syspath_prepend(FOLDER)
    import staleness

    return staleness


@pytest.mark.parametrize("name", NETWORKS)
def test_all_ways_train_the_same_networks(throughput: Any, name: str) -> None:
    assert set(throughput.NETWORKS) == set(NETWORKS)
    assert throughput.disagreement(name, throughput.WAYS) < 1e-9


def test_a_way_that_trains_something_else_is_refused(
    throughput: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lazy(work: Any) -> Any:
        return lambda steps: throughput.loop(work)(steps - 1)

    monkeypatch.setitem(throughput.WAYS, "lazy", lazy)
    monkeypatch.setattr(throughput, "jax_ways", dict)
    with pytest.raises(RuntimeError, match="must train the same MLP"):
        next(throughput.rows((1,)))


def test_each_way_is_measured_against_the_loop(
    throughput: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "LEAST", 0.0)
    monkeypatch.setattr(throughput, "ROUNDS", 1)
    rows = list(throughput.compare("MLP", 2, throughput.WAYS, rate=1e9))
    assert [row["way"] for row in rows] == list(throughput.WAYS)
    for row in rows:
        ratio = row["steps_per_second"] / rows[0]["steps_per_second"]
        assert row["over_loop"] == pytest.approx(ratio)
    assert throughput.flops_of_a_step("MLP") == 3 * 2 * 32 * (64 * 64 * 2 + 640) - (
        2 * 32 * 64 * 64  # nobody needs the gradient of the input
    )


def test_what_a_change_makes_stale(staleness: Any, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    for name, work in (("one", "pass"), ("two", "from lnlib import probes")):
        add_study(project, name, work=work)
    for job in runner.plan(project, tier="quick"):
        assert runner.execute(job, project).error is None
    expected = {
        "nothing": [],
        "the prose of one study": [],
        "the code of one study": ["one"],
        "lnlib/runner.py": [],
        "lnlib/probes.py": ["two"],
        "lnlib/stats.py": ["one", "two"],
    }
    for change, stale in expected.items():
        kept = {
            path: path.read_bytes()
            for part in ("lnlib", "notebooks")
            for path in (project.root / part).rglob("*.*")
            if path.suffix in (".py", ".ipynb")
        }
        staleness.CHANGES[change](project)
        assert staleness.due(project) == stale, change
        for path, content in kept.items():
            path.write_bytes(content)


def test_stale_results_are_no_benchmark(
    staleness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project")
    add_study(project, "one")
    monkeypatch.setattr(staleness, "ROOT", project.root)
    monkeypatch.setattr(staleness, "Project", lambda *_, **__: Project(project.root))
    with pytest.raises(RuntimeError, match="received 1 that are not"):
        next(staleness.rows())


def test_the_program_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    script = (
        f"import runpy, sys; sys.path.insert(0, {str(FOLDER)!r}); import growth\n"
        "growth.seeds.__defaults__ = ((1,),); growth.notebooks.__defaults__ = ((1,),)\n"
        f"sys.argv = ['bench', 'growth', '--output', {str(tmp_path / 'b.json')!r}]\n"
        f"runpy.run_path({str(FOLDER / '__main__.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    found = json.loads((tmp_path / "b.json").read_text("utf-8"))
    assert [row["network"] for row in found["more seeds"]] == list(NETWORKS)
    assert found["more notebooks"][0]["over_one"] == 1
    assert "mib more" in done.stdout


def test_memory_is_counted_below_a_larger_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import growth\n"
        "if __name__ == '__main__':\n"
        "    large = b'1' * 2**30\n"
        "    growth.throughput.NETWORKS = ['MLP']\n"
        "    print([row['mib_more'] for row in growth.seeds((1, 64))])\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True
    )
    one, many = json.loads(done.stdout)
    assert one < 5 < many


def test_an_unknown_part_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER), "speed"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "PART must be one of runners, staleness" in done.stderr
