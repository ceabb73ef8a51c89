"""pyproject.toml, the lock, the pin of torch and environment.yml must agree."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import lnlib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
TORCH = (ROOT / "requirements-torch.txt").read_text()
SYSTEMS = [
    {"sys_platform": system, "python_version": python, "python_full_version": full}
    for system in ("linux", "darwin")
    for python, full in (("3.11", "3.11.0"), ("3.12", "3.12.0"), ("3.13", "3.13.0"))
]
# Where conda-forge's name is not that of the package index.
CONDA_NAMES = {"matplotlib-base": "matplotlib", "pytorch": "torch"}
CONDA_SPEC = re.compile(r"([a-z0-9][a-z0-9._-]*)(?: ([<>=!~0-9.,]+))?")
# What we import under another name than the package has, or through another package.
PROVIDERS = {
    "PIL": "pillow",
    "IPython": "ipykernel",
    "cycler": "matplotlib",
    "distributed": "dask",
    "docutils": "jupyter-book",
    "sklearn": "scikit-learn",
    "bs4": "beautifulsoup4",
    "sphinx": "jupyter-book",
    "yaml": "pyyaml",
}
CUDA = re.compile(r"nvidia-|cuda-|triton")


def project_ranges(project: dict[str, Any]) -> dict[str, SpecifierSet]:
    """Name -> range of Python and of each dependency of the project."""
    requirements = [Requirement(line) for line in project["project"]["dependencies"]]
    ranges = {canonicalize_name(r.name): r.specifier for r in requirements}
    return ranges | {"python": SpecifierSet(project["project"]["requires-python"])}


def environment_ranges(environment: dict[str, Any]) -> dict[str, SpecifierSet]:
    """Name on the package index -> range in `environment.yml`, pip's part included."""
    ranges = {}
    for entry in environment["dependencies"]:
        if isinstance(entry, dict):
            for line in entry["pip"]:
                if line != "-e .":
                    requirement = Requirement(line)
                    ranges[canonicalize_name(requirement.name)] = requirement.specifier
            continue
        match = CONDA_SPEC.fullmatch(entry)
        assert match, f"not a conda specification: {entry!r}"
        name, versions = match.groups()
        ranges[CONDA_NAMES.get(name, name)] = SpecifierSet(versions or "")
    del ranges["pip"]  # conda's own tool for the entries that it lacks
    return ranges


def disagreements(project: dict[str, Any], environment: dict[str, Any]) -> list[str]:
    """Every name whose range is not the same in both."""
    wanted, given = project_ranges(project), environment_ranges(environment)
    return [
        f"{name}: pyproject.toml has {wanted.get(name)}, "
        f"environment.yml has {given.get(name)}"
        for name in sorted(wanted.keys() | given.keys())
        if wanted.get(name) != given.get(name)
    ]


def pins(text: str) -> list[Requirement]:
    """The requirements of a pip file, without their hashes and comments."""
    lines = [line for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    return [Requirement(line.removesuffix("\\").strip()) for line in lines]


def unlocked(project: dict[str, Any], lock: str, torch: str) -> list[str]:
    """Direct dependencies that, on some system, are not pinned inside their range."""
    lines = project["project"]["dependencies"]
    lines = lines + project["project"]["optional-dependencies"]["dev"]
    lines = lines + project["dependency-groups"]["torch-needs"]
    problems = []
    for system in SYSTEMS:
        versions = {
            canonicalize_name(pin.name): next(iter(pin.specifier)).version
            for pin in pins(lock) + pins(torch)
            if pin.marker is None or pin.marker.evaluate(system)
        }
        for wanted in map(Requirement, lines):
            version = versions.get(canonicalize_name(wanted.name))
            if version is None or not wanted.specifier.contains(version):
                problems.append(f"{wanted} is locked at {version} on {system}")
    return problems


def test_environment_is_one_that_conda_reads():
    assert set(ENVIRONMENT) == {"name", "channels", "dependencies"}
    assert ENVIRONMENT["channels"][0] == "conda-forge"
    names = [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)]
    assert "pip" in names  # conda warns of a pip part without it
    pip_part = [
        entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict)
    ]
    assert len(pip_part) == 1
    assert "-e ." in pip_part[0]["pip"]  # lnlib itself
    assert len(names) == len({re.split(r"[ <>=]", name)[0] for name in names})


def test_environment_agrees_with_pyproject():
    assert disagreements(PROJECT, ENVIRONMENT) == []


@pytest.mark.parametrize("index", range(len(ENVIRONMENT["dependencies"]) - 2))
def test_any_changed_bound_is_a_disagreement(index):
    entries = list(ENVIRONMENT["dependencies"])
    before, entry, after = entries[:index], entries[index], entries[index + 1 :]
    known = set(disagreements(PROJECT, ENVIRONMENT))
    for changed in ([entry + ".1"], [entry.replace(">=", ">=9")], []):
        environment = ENVIRONMENT | {"dependencies": before + changed + after}
        assert len(set(disagreements(PROJECT, environment)) - known) == 1


def test_lock_pins_every_dependency_inside_its_range():
    assert unlocked(PROJECT, LOCK, TORCH) == []


def test_a_pin_outside_its_range_is_found():
    assert unlocked(PROJECT, re.sub(r"(?m)^numpy==\S+", "numpy==1.26.4", LOCK), TORCH)
    assert unlocked(PROJECT, re.sub(r"(?m)^rich==\S+", "poor==1.0", LOCK), TORCH)
    assert unlocked(PROJECT, LOCK, "torch==2.0.0")


def test_lock_is_exact_hashed_and_free_of_torch_and_addresses():
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", LOCK)[1:]
    assert len(entries) > 100
    for entry in entries:
        name = entry.split("==")[0]
        assert re.match(r"[a-z0-9-]+==\S+", entry), entry[:60]
        assert "--hash=sha256:" in entry, f"{name} has no hash"
        assert name != "torch", "torch belongs in requirements-torch.txt"
        assert not CUDA.match(name), f"{name} is a part of torch's CUDA build"
    assert "://" not in LOCK
    assert not re.search(r"(?m)^ *--(?!hash=)", LOCK), "an option besides the hashes"


def imported(source: str) -> set[str]:
    """The top-level modules that Python code imports, relative ones left out."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.split(".")[0])
    return modules


def undeclared(modules, local, *more):
    """Packages that code imports and pyproject.toml does not list, `more` included."""
    outside = modules - sys.stdlib_module_names - {"lnlib", *local}
    names = {canonicalize_name(PROVIDERS.get(name, name)) for name in outside}
    declared = {canonicalize_name(Requirement(line).name) for line in more}
    return names - project_ranges(PROJECT).keys() - declared


def test_every_import_is_a_declared_dependency():
    paths = [*(ROOT / "lnlib").rglob("*.py"), *(ROOT / "book/_ext").glob("*.py")]
    modules = set().union(*(imported(path.read_text()) for path in paths))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                source = "".join(cell["source"])
                modules |= imported(re.sub(r"(?m)^[%!].*", "", source))
    cluster = PROJECT["project"]["optional-dependencies"]["cluster"]
    assert undeclared(modules, {path.stem for path in paths}, *cluster) == set()


def test_every_import_of_a_test_is_a_declared_dependency():
    paths = list((ROOT / "tests").rglob("*.py"))
    extras = PROJECT["project"]["optional-dependencies"]
    for path in paths:
        more = extras["bench"] if path.parent.name == "benchmarks" else []
        own = {path.stem for path in paths}
        missing = undeclared(imported(path.read_text()), own, *extras["dev"], *more)
        assert missing == set(), path


def test_torch_is_pinned_exactly():
    (pin,) = pins(TORCH)
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+", str(pin))


def test_what_torch_needs_is_locked():
    requires = map(Requirement, importlib.metadata.requires("torch") or [])
    needs = {
        canonicalize_name(r.name): r.specifier
        for r in requires
        if "extra" not in str(r.marker) and not CUDA.match(r.name)
    }
    group = map(Requirement, PROJECT["dependency-groups"]["torch-needs"])
    assert needs.keys() == {canonicalize_name(r.name) for r in group}
    for pin in pins(LOCK):
        if pin.name in needs:
            assert needs[pin.name].contains(next(iter(pin.specifier)).version)


def test_jupyter_book_stays_below_2():
    assert not project_ranges(PROJECT)["jupyter-book"].contains("2.0.0")


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["project"]["version"] == lnlib.__version__ == citation["version"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")))
def test_workflows_give_away_no_rights(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    rights = {k: set(job.get("permissions", {})) for k, job in workflow["jobs"].items()}
    assert rights.pop("deploy", set()) <= {"pages", "id-token"}
    assert not any(rights.values())
    for job in workflow["jobs"].values():
        if "uses" in job:
            assert re.fullmatch(r"\./\.github/workflows/[a-z]+\.yml", job["uses"])
        for step in job.get("steps", []):
            if "uses" in step:
                assert ACTION.fullmatch(step["uses"]), step["uses"]
            for version in versions(job, step):
                assert project_ranges(PROJECT)["python"].contains(version)


ACTION = re.compile(r"actions/[a-z-]+@(v\d+|[0-9a-f]{40})")


def versions(job, step):
    """The versions of Python with which a step of a workflow runs."""
    version = step.get("with", {}).get("python-version")
    if version == "${{ matrix.python-version }}":
        return [row["python-version"] for row in job["strategy"]["matrix"]["include"]]
    return [version] if version else []


@pytest.mark.parametrize(
    ("action", "known"),
    [
        ("actions/checkout@v7", True),
        (f"actions/checkout@{'0a' * 20}", True),
        ("actions/checkout@main", False),
        ("actions/checkout@0a0a0a", False),
        ("somebody/checkout@v7", False),
    ],
)
def test_an_action_has_a_version_or_a_commit(action, known):
    assert bool(ACTION.fullmatch(action)) == known


def workflow(name):
    return yaml.safe_load((ROOT / ".github/workflows" / f"{name}.yml").read_text())


def test_every_promised_system_is_tested():
    rows = workflow("test")["jobs"]["test"]["strategy"]["matrix"]["include"]
    whole = [row for row in rows if "options" not in row]
    assert [(row["os"], row["python-version"]) for row in whole] == [
        ("ubuntu-latest", "3.11")
    ]
    versions = {row["python-version"] for row in rows}
    listed = PROJECT["project"]["classifiers"]
    promised = {line.split(":: ")[-1] for line in listed if ":: Python ::" in line}
    assert versions == promised
    assert {row["os"] for row in rows} == {"ubuntu-latest", "macos-latest"}
    for row in rows:
        for option in row.get("options", "").split():
            assert (ROOT / option.removeprefix("--ignore=")).is_file(), option


def test_nothing_is_published_untested():
    jobs = workflow("publish")["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
    assert "workflow_call" in workflow("test")[True]  # YAML reads `on` as true
    assert set(jobs["deploy"]["needs"]) == {"test", "build"}


@pytest.mark.xdist_group("group")
def test_a_group_stays_on_one_worker(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("needs workers: -n 2")
    assert request.node.nodeid.endswith("@group")  # xdist sorts by this ending
