"""The same notebooks at the same tier, run by what people use.

Ours with two workers, papermill one after the other, `pytest --nbmake -n 2`, and
Jupyter Book's own execution (a build that executes, less one that does not).  nbmake
and Jupyter Book know no parameters: they get copies that are set to the tier.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from lnlib.results import Project, code_cells, read_notebook, write_notebook

ROOT = Path(__file__).resolve().parents[2]
TIER = "quick"
STUDIES = (
    "what_layer_norm_computes",
    "cost_and_precision",
    "meta_learning_scales",
    "dropout_variance_bias",
    "cnn_texture_bias",
    "gan_discriminators",
)
Way = Callable[[Sequence[str], Path], float]


def timed(*command: str | Path, cwd: Path = ROOT) -> float:
    """Return the seconds that a command takes; raise if it fails."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "LNLIB_REGISTRY": str(Project().registry),
    }
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    spent = time.perf_counter() - start
    if done.returncode:
        said = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(
            f"{' '.join(map(str, command))} must succeed; it said {said}"
        )
    return spent


def copies(studies: Sequence[str], folder: Path) -> None:
    """Write the notebooks with the tier in their parameters cell."""
    folder.mkdir(parents=True)
    for name in studies:
        notebook = read_notebook(ROOT / "notebooks" / f"{name}.ipynb")
        (cell,) = (
            c
            for c in code_cells(notebook)
            if "parameters" in c.metadata.get("tags", [])
        )
        cell.source = cell.source.replace('tier = "book"', f'tier = "{TIER}"')
        write_notebook(notebook, folder / f"{name}.ipynb")


def ours(studies: Sequence[str], folder: Path) -> float:
    """`python -m lnlib run`, two workers."""
    return timed(
        *("-m", "lnlib", "run", *studies, "--tier", TIER, "--jobs", "2"),
        *("--results", folder / "results"),
    )


def papermill(studies: Sequence[str], folder: Path) -> float:
    """papermill, one notebook after the other."""
    return sum(
        timed(
            *("-m", "papermill", f"{name}.ipynb", folder / f"{name}.out.ipynb"),
            *("-p", "tier", TIER, "--no-progress-bar"),
            cwd=ROOT / "notebooks",
        )
        for name in studies
    )


def nbmake(studies: Sequence[str], folder: Path) -> float:
    """`pytest --nbmake -n 2`."""
    copies(studies, folder / "nbmake")
    return timed(
        *("-m", "pytest", "--nbmake", "-n", "2", "--nbmake-timeout=900"),
        *("-p", "no:cacheprovider", "--rootdir", folder, folder / "nbmake"),
        cwd=folder,
    )


def jupyter_book(studies: Sequence[str], folder: Path) -> float:
    """A build that executes, less a build that does not."""
    copies(studies, folder / "book")
    (folder / "book" / "index.md").write_text("# A book\n", "utf-8")
    chapters = [{"file": name} for name in studies]
    contents = {"format": "jb-book", "root": "index", "chapters": chapters}
    (folder / "book" / "_toc.yml").write_text(yaml.safe_dump(contents), "utf-8")
    spent = {}
    for how in ("force", "off"):
        execute = {"execute_notebooks": how, "timeout": 900}
        config = {"title": "A book", "execute": execute, "only_build_toc_files": True}
        (folder / "book" / "_config.yml").write_text(yaml.safe_dump(config), "utf-8")
        program = Path(sys.executable).with_name("jupyter-book")
        spent[how] = timed(program, "build", folder / "book", "--all", cwd=folder)
        if how == "force":
            told = (folder / "book" / "_build" / "html" / "reports").glob("*.err.log")
            shown = (folder / "book" / "_build" / "html").glob("*.html")
            if any(told) or not set(studies) <= {page.stem for page in shown}:
                raise RuntimeError("Jupyter Book must execute all of the notebooks")
    return spent["force"] - spent["off"]


def ways() -> dict[str, Way]:
    """Return the ways to run notebooks that are installed."""
    found: dict[str, Way] = {
        "lnlib run, two workers": ours,
        "papermill, one by one": papermill,
        "jupyter-book build": jupyter_book,
    }
    if find_spec("nbmake"):
        found["pytest --nbmake -n 2"] = nbmake
    return found


def rows(studies: Sequence[str] = STUDIES) -> Iterator[dict[str, Any]]:
    """Yield one row for each way, the time as a ratio to ours."""
    base = None
    for way, run in ways().items():
        with tempfile.TemporaryDirectory() as folder:
            spent = run(studies, Path(folder))
        base = base or spent
        yield {
            "way": way,
            "notebooks": len(studies),
            "seconds": spent,
            "over_ours": spent / base,
        }
