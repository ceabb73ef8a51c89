"""What a change costs: the studies that run again, and the time if nothing changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lnlib import runner
from lnlib.results import Project, code_cells, read_notebook, status
from lnlib.results import write_notebook as write

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path("_build", "test", "results")
PARTS = ("lnlib", "notebooks", "requirements.lock", "requirements-torch.txt", RESULTS)


def copy(folder: Path) -> Project:
    """Copy what decides whether a result is fresh, and the quick results."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part)
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, folder / part)
    return Project(folder, output=folder / RESULTS)


def due(project: Project) -> list[str]:
    """Return the studies whose quick result is not fresh."""
    jobs = runner.plan(project, tier="quick")
    return [job.study for job in jobs if status(job, project) != "fresh"]


def change_prose(project: Project) -> None:
    """Add a sentence to the first study."""
    path = project.notebook(project.studies()[0])
    notebook = read_notebook(path)
    notebook.cells[0].source += "\n\nA sentence more."
    write(notebook, path)


def change_notebook(project: Project) -> None:
    """Change the last cell of code of the first study."""
    path = project.notebook(project.studies()[0])
    notebook = read_notebook(path)
    code_cells(notebook)[-1].source += "\npass"
    write(notebook, path)


def change_module(name: str) -> Callable[[Project], None]:
    """Return what changes one module of lnlib."""

    def change(project: Project) -> None:
        path = project.root / "lnlib" / f"{name}.py"
        path.write_text(path.read_text("utf-8") + "\nCHANGED = True\n", "utf-8")

    return change


CHANGES: dict[str, Callable[[Project], None]] = {
    "nothing": lambda project: None,
    "the prose of one study": change_prose,
    "the code of one study": change_notebook,
    "lnlib/runner.py": change_module("runner"),
    "lnlib/probes.py": change_module("probes"),
    "lnlib/replicas.py": change_module("replicas"),
    "lnlib/stats.py": change_module("stats"),
}


def rows() -> Iterator[dict[str, Any]]:
    """Yield how many studies each change makes stale, and the time without a change.

    Raises:
        RuntimeError: the quick results are not all there.
    """
    if missing := due(Project(ROOT, output=ROOT / RESULTS)):
        raise RuntimeError(
            f"the quick results must be fresh; received {len(missing)} that are not. "
            f"Run: python -m lnlib run --tier quick --results {RESULTS}"
        )
    for what, change in CHANGES.items():
        with tempfile.TemporaryDirectory() as folder:
            project = copy(Path(folder))
            change(project)
            row = {"changed": what, "studies_run_again": len(due(project))}
        if what == "nothing":
            command = [sys.executable, "-m", "lnlib", "run", "--tier", "quick"]
            start = time.perf_counter()
            subprocess.run(
                [*command, "--results", RESULTS], cwd=ROOT, check=True, text=True
            )
            row["seconds"] = time.perf_counter() - start
        yield row
