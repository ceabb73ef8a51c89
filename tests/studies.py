"""A small project in a folder of its own, to run and to break."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lnlib import runner
from lnlib.results import Project

HERE = Path(__file__).resolve().parents[1]
PARAMETERS = 'tier = "book"\nseed = 0\ncontrol = "none"\ndevice = "cpu"'
IMPORTS = "from lnlib.claims import Study\nfrom lnlib.stats import exact"
OPEN = (
    'study = Study("{name}", tier=tier, seed=seed, control=control, device=device)\n'
    'offset = 1.0 if control == "shifted" else 0.0\n'
    "study.uses(offset=offset)"
)
MEASURE = """\
study.record("{name}.mean", "mean", exact(offset, 0.01, n=3))
study.judge("{name}.mean")
study.record("{name}.spread", "spread", exact(2.0, 0.01, n=3))
study.record("{name}.spread", "variance", exact(4.0, 0.01, n=3))
study.judge("{name}.spread")"""
CELLS = {
    "parameters": PARAMETERS,
    "imports": IMPORTS,
    "open": OPEN,
    "work": "pass",
    "measure": MEASURE,
    "close": "study.close()",
}


def claim(claim_id: str, expected: str, **about: Any) -> dict[str, Any]:
    """Return a claim for the registry, with one stated prediction."""
    name = claim_id.split(".")[1]
    return {
        "id": claim_id,
        "source": {"text": "chapter", "heading": "H", "sentence": 1, "quote": "q"},
        "says": "A number is small.",
        "falsifier": "a large number",
        "settings": "the usual ones",
        "expected": expected,
        "finding": f"It is {{{name}:.2f}}.",
        "predictions": [
            {
                "name": name,
                "kind": "stated",
                "relation": "<",
                "bound": 0.5,
                "quantity": "a number",
                "reason": "half of one",
            }
        ],
        **about,
    }


def registry(name: str) -> dict[str, Any]:
    """Return the registry of a study with two claims and two controls."""
    mean = claim(f"{name}.mean", "holds")
    mean["controls"] = {"shifted": {"verdict": "fails", "leaves": f"{name}.spread"}}
    spread = claim(f"{name}.spread", "fails")
    spread["controls"] = {"narrow": {"verdict": "holds", "leaves": f"{name}.mean"}}
    law = {"name": "variance", "kind": "law", "relation": ">", "bound": 3}
    spread["predictions"].append(law | {"quantity": "its square", "reason": "algebra"})
    return {
        "study": name,
        "title": name,
        "question": "Is it small?",
        "data": ["none"],
        "prerequisites": [],
        "ordinary": {"offset": 0.0},
        "controls": {"shifted": "adds one", "narrow": "is not read by the notebook"},
        "claims": [mean, spread],
    }


def add_study(project: Project, name: str, **cells: str) -> None:
    """Write a study's notebook and registry; `cells` replace those of CELLS."""
    notebook = new_notebook(cells=[new_markdown_cell("# A study", id="title")])
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    for cell_id, source in (CELLS | cells).items():
        notebook.cells.append(new_code_cell(source.replace("{name}", name), id=cell_id))
    notebook.cells[1].metadata["tags"] = ["parameters"]
    project.notebook(name).parent.mkdir(exist_ok=True)
    nbformat.write(notebook, project.notebook(name))
    text = yaml.safe_dump(registry(name), sort_keys=False)
    (project.registry / f"{name}.yml").write_text(text, encoding="utf-8")


def make_project(root: Path) -> Project:
    """Return a project without studies, with a copy of lnlib."""
    ignore = shutil.ignore_patterns("*.yml", "__pycache__")
    shutil.copytree(HERE / "lnlib", root / "lnlib", ignore=ignore)
    return Project(root)


@contextmanager
def guarded() -> Iterator[None]:
    """Let no kernel reach a network or unpickle code: see guard/sitecustomize.py."""
    paths = [str(HERE / "tests" / "guard"), os.environ.get("PYTHONPATH", "")]
    with runner.environment({"PYTHONPATH": os.pathsep.join(filter(None, paths))}):
        yield


def run_cells(study: str, cells: tuple[str, ...], names: dict[str, Any]) -> None:
    """Run these cells of a study's notebook; `names` is what they find and leave."""
    notebook = nbformat.read(HERE / "notebooks" / f"{study}.ipynb", as_version=4)
    source = {cell.id: cell.source for cell in notebook.cells}
    for cell in cells:
        exec(compile(source[cell], cell, "exec"), names)


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page of the book in that language."""
    text = (HERE / "book" / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def edit(path: Path, old: str, new: str) -> None:
    """Replace the first occurrence of a text, which must be there."""
    text = path.read_text("utf-8")
    assert old in text, f"{old!r} must stand in {path}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def lnlib(
    project: Project,
    *words: str,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    **more: Any,
) -> subprocess.Popen[str]:
    """Start `python -m lnlib` in the project, by the command `prefix`."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "lnlib", *words],
        cwd=project.root,
        env=os.environ | {"PYTHONPATH": str(project.root)} | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **more,
        # A job in the background of a shell ignores Ctrl-C, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
