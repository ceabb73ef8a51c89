"""A wheel of lnlib is enough to run a notebook elsewhere: its registry is inside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import nbformat
import pytest

from lnlib.registry import study_names
from lnlib.results import Project

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.xdist_group("wheel")  # built once


def run(*command: str, cwd: Path) -> str:
    """Run a command outside this checkout; return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy: the build leaves files beside its sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-prose"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lnlib", source / "lnlib", ignore=ignored)
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index")
    run(*pip, "--no-build-isolation", ".", "-w", "dist", cwd=source)
    (built,) = (source / "dist").glob("lnlib-*.whl")
    return built


def test_every_registry_file_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"lnlib/registry/{study}.yml" for study in study_names(Project().registry)
    }
    assert wanted <= names
    assert "lnlib/py.typed" in names


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and the libraries of this one."""
    folder = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(str(python), "-c", purelib, cwd=folder).strip())
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    install = ("install", "-q", "--no-deps", "--no-index", str(wheel))
    run(sys.executable, "-m", "pip", "--python", str(python), *install, cwd=folder)
    return python


def test_a_notebook_starts_with_the_wheel_alone(
    elsewhere: Path, tmp_path: Path
) -> None:
    notebook = nbformat.read(
        ROOT / "notebooks" / "dropout_variance_bias.ipynb", as_version=4
    )
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    last = next(i for i, cell in enumerate(code) if "Study(" in cell.source)
    told = nbformat.v4.new_code_cell("import lnlib\nprint(lnlib.__file__)")
    notebook.cells = [*code[: last + 1], told]
    nbformat.write(notebook, tmp_path / "start.ipynb")
    script = (
        "import nbclient, nbformat\n"
        "notebook = nbformat.read('start.ipynb', as_version=4)\n"
        "nbclient.NotebookClient(notebook, kernel_name='python3').execute()\n"
        "print(notebook.cells[-1].outputs[0].text)\n"
    )
    said = run(str(elsewhere), "-c", script, cwd=tmp_path)
    assert str(elsewhere.parents[1]) in said


def test_a_paper_is_named_without_the_bibliography(
    elsewhere: Path, tmp_path: Path
) -> None:
    script = "from lnlib.registry import paper_name; print(paper_name('ba2016layer'))"
    assert run(str(elsewhere), "-c", script, cwd=tmp_path) == "ba2016layer\n"
