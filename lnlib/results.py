"""Results: where they are, from what they were made, and whether they can be trusted.

A result is an executed notebook.  Its seal (`metadata.lnlib`) says from which inputs it
was made and holds a digest of its content, so that a stale result is found and an
edited one is refused.  Data are covered by the modules that load them: these declare a
sha256 for each file, and verify it.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lnlib.claims import NOT_JUDGED, RUN_MIME, VERDICT_MIME, check_bundle
from lnlib.registry import StudyRecord, load_study, study_names

# jsonschema, which nbformat imports, looks for a grammar of addresses that no notebook
# needs.  To load it takes longer than all the rest.
_loaded: dict[str, Any] = sys.modules
_loaded.setdefault("rfc3987_syntax", None)
import nbformat  # noqa: E402

if _loaded["rfc3987_syntax"] is None:
    del _loaded["rfc3987_syntax"]

DEFAULTS = {"tier": "book", "seed": 0, "control": "none", "device": "cpu"}
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "statsmodels", "matplotlib")


class ProjectError(ValueError):
    """The notebooks and the registry do not fit each other."""


class DamagedResult(ValueError):  # noqa: N818
    """A result that is not what a run wrote."""


@dataclass(frozen=True)
class Project:
    """Where notebooks, registry and results are; `output` moves the results."""

    root: Path = Path(__file__).resolve().parents[1]
    output: Path | None = None

    @property
    def registry(self) -> Path:
        """The folder of the registry."""
        return self.root / "lnlib" / "registry"

    @property
    def results(self) -> Path:
        """The folder of the results, with one folder per tier."""
        return (self.output or self.root / "_build" / "results").absolute()

    def notebook(self, study: str) -> Path:
        """Return the path of the study's notebook."""
        return self.root / "notebooks" / f"{study}.ipynb"

    def record(self, study: str) -> StudyRecord:
        """Return the study's registry entry."""
        path = self.registry / f"{study}.yml"
        content = path.read_bytes() if path.is_file() else b""
        return _record(study, self.registry, content)

    def studies(self) -> list[str]:
        """Return the names of all studies, each with a notebook and a registry file.

        Raises:
            ProjectError: one of the two is missing, or there is no study.
        """
        notebooks = {path.stem for path in (self.root / "notebooks").glob("*.ipynb")}
        names = study_names(self.registry)
        for name in sorted(notebooks ^ set(names)):
            pair = self.notebook(name), self.registry / f"{name}.yml"
            has, lacks = reversed(pair) if name in names else pair
            raise ProjectError(f"{has} must have its {lacks}: add it, or remove both")
        if not names:
            raise ProjectError(f"no study in {self.root}: run this in a checkout")
        return names


@dataclass(frozen=True)
class Job:
    """One run of one study."""

    study: str
    tier: str = "book"
    seed: int = 0
    control: str = "none"
    device: str = "cpu"

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the notebook."""
        return {name: getattr(self, name) for name in DEFAULTS}

    @property
    def name(self) -> str:
        """The stem of the result's file name."""
        parts = [self.study]
        parts += [self.control] if self.control != "none" else []
        parts += [f"seed{self.seed}"] if self.seed else []
        parts += [self.device] if self.device != "cpu" else []
        return "--".join(parts)

    def __str__(self) -> str:
        """Return the name and the tier."""
        return f"{self.name} ({self.tier})"


@dataclass(frozen=True)
class Result:
    """An executed notebook whose seal and verdicts were verified.

    `bundles` are its verdict bundles, `run` is the bundle of its closing cell, `seal`
    its `metadata.lnlib` (seconds, cpu_seconds, versions, commit, inputs ...).
    """

    path: Path
    bundles: list[dict[str, Any]]
    run: dict[str, Any]
    seal: dict[str, Any]

    @property
    def verdicts(self) -> dict[str, str]:
        """The verdicts by claim id."""
        return {b["claim"]: b["verdict"] for b in self.bundles}


def result_path(job: Job, project: Project) -> Path:
    """Return where the result of a job belongs."""
    return project.results / job.tier / f"{job.name}.ipynb"


def failed_path(job: Job, project: Project) -> Path:
    """Return where the notebook of a run that failed is left."""
    return result_path(job, project).with_suffix(".failed.ipynb")


def read_notebook(path: Path) -> Any:
    """Return the notebook at `path`, in version 4 of the format.

    Raises:
        OSError: there is none, or it cannot be read.
        ProjectError: it is no notebook.
    """
    return _parse(path, path.read_bytes())


def _parse(path: Path, content: bytes) -> Any:
    try:
        return nbformat.reads(content.decode(), as_version=4)  # type: ignore[no-untyped-call]
    except Exception as error:  # of JSON, of Unicode, of nbformat
        raise ProjectError(
            f"{path} must be a notebook: {error}. Mend it, or take it from git again"
        ) from error


def write_notebook(notebook: Any, path: Path) -> None:
    """Write a notebook to `path`."""
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def sha256(data: bytes | str) -> str:
    """Return the digest of bytes, or of a text in UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


# ------------------------------------------------------------- stale or fresh


@lru_cache(maxsize=64)
def _record(study: str, registry: Path, content: bytes) -> StudyRecord:
    """Return a registry entry, parsed once for a content of its file: YAML is slow."""
    return load_study(study, registry)


@lru_cache(maxsize=256)
def _imports(source: str, name: str) -> frozenset[str]:
    """Return the modules of lnlib, and the names in them, that `source` imports."""
    names: set[str] = set()
    try:
        tree = ast.parse(source, name)
    except SyntaxError as error:
        raise ProjectError(f"{name} must be Python: {error}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ["lnlib"] * (node.level > 0) + [node.module or ""] * bool(
                node.module
            )
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return frozenset(name for name in names if name.split(".")[0] == "lnlib")


@lru_cache(maxsize=64)
def _code(path: Path, content: bytes) -> list[tuple[str, str]]:
    """Return id and source of a notebook's code cells, parsed once for a content."""
    return [(cell.id, cell.source) for cell in code_cells(_parse(path, content))]


def _modules(path: Path, package: Path) -> set[Path]:
    """Return the files of `package` that a notebook imports, directly or not."""
    cells = "\n".join(source for _, source in _code(path, path.read_bytes()))
    todo = {path: re.sub(r"(?m)^\s*[%!].*", "", cells)}  # magics are no Python
    found: set[Path] = set()
    while todo:
        path, source = todo.popitem()
        for name in _imports(source, str(path)):
            stem = [*name.split("."), "__init__"][1]
            files = ("__init__.py", f"{stem}.py", f"{stem}/__init__.py")
            new = {package / f for f in files if (package / f).is_file()} - found
            todo |= {path: path.read_text("utf-8") for path in new}
            found |= new
    return found


def code_cells(notebook: Any) -> list[Any]:
    """Return the code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def surroundings(studies: Iterable[str], project: Project) -> dict[str, str]:
    """Return what results depend on besides code cells and parameters, by name.

    These are the modules of lnlib that the notebooks import, directly or through
    others, the registry files, and the versions of the libraries.
    """
    found = {}
    for study in studies:
        modules = _modules(project.notebook(study), project.root / "lnlib")
        for path in [*sorted(modules), project.registry / f"{study}.yml"]:
            found[str(path.relative_to(project.root))] = sha256(path.read_bytes())
    found["python"] = ".".join(platform.python_version_tuple()[:2])
    for library in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def inputs(job: Job, project: Project) -> dict[str, str]:
    """Return all that a result depends on, by name: values, versions, digests."""
    path = project.notebook(job.study)
    told = map("\0".join, _code(path, path.read_bytes()))  # outputs go by their ids
    code = {"code cells": sha256("\0".join(told))}
    parameters = {name: str(value) for name, value in job.parameters.items()}
    return parameters | code | surroundings([job.study], project)


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Say in words what differs between two sets of inputs."""
    told = []
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name, "none"), new.get(name, "none")
        if was != now:
            short = max(len(was), len(now)) < 40
            told.append(f"{name} {was} -> {now}" if short else f"{name} changed")
    return ", ".join(told)


def status(job: Job, project: Project) -> str:
    """Return "fresh", "missing", "stale: why", "damaged: why" or "failed: why".

    The result of a notebook that is no Python any more is stale.  A study has failed,
    and need not run again, if it closed with these inputs and did not stand: with
    another verdict than the expected one, say.
    """
    return standing(job, project)[0]


def standing(job: Job, project: Project) -> tuple[str, Result | None]:
    """Return the status of a job, and what was measured if it is fresh or has failed.

    What a failed run measured is no result of the study: no page shows it.  It is an
    answer all the same to how often a verdict comes out (:mod:`lnlib.stability`).
    """
    path = result_path(job, project)
    if path.exists():
        return _standing(path, job, project)
    path = failed_path(job, project)
    if path.exists():
        _, found = _standing(path, job, project, failed=True)
        if found is not None:
            return f"failed: {found.seal['error']}", found
    return "missing", None


def _standing(
    path: Path, job: Job, project: Project, *, failed: bool = False
) -> tuple[str, Result | None]:
    try:
        notebook = _unseal(path, project, failed=failed)
        differ = changes(notebook.metadata.lnlib.inputs, inputs(job, project))
        if differ:
            return f"stale: {differ}", None
        return "fresh", _result(path, notebook, project)
    except DamagedResult as error:
        return f"damaged: {error}", None
    except ProjectError as error:
        return f"stale: {error}", None


# ------------------------------------------------------------- seal and verdicts


def bundles(notebook: Any, mime: str) -> list[dict[str, Any]]:
    """Return the data of one MIME type among a notebook's outputs."""
    outputs = (output for cell in code_cells(notebook) for output in cell.outputs)
    data = (output.get("data", {}) for output in outputs)
    return [d[mime] for d in data if mime in d]


def verdicts_of(notebook: Any, project: Project) -> list[dict[str, Any]]:
    """Return the verdict bundles of any executed notebook, each judged again.

    For a notebook without a seal, as Jupyter Book executes it, this is all there is.

    Raises:
        DamagedResult: the study did not close, or a verdict is not what the numbers,
            the registry and the rule make of it.
    """
    runs, found = bundles(notebook, RUN_MIME), bundles(notebook, VERDICT_MIME)
    if len(runs) != 1:
        raise DamagedResult(f"a study must close once; it closed {len(runs)} times")
    try:
        record = project.record(runs[0]["study"])
        for bundle in found:
            check_bundle(bundle, record, runs[0]["tier"], runs[0]["control"])
        shown = sorted((b["claim"], b["verdict"]) for b in found)
        agree = shown == sorted(runs[0]["verdicts"].items())
    except (LookupError, TypeError, ValueError) as error:
        raise DamagedResult(f"not what the rule makes of it: {error}") from error
    if not agree:
        raise DamagedResult("its verdicts must be those of its closing cell")
    return found


def _content(notebook: Any) -> str:
    """Return the digest of a notebook, but for the digest in its own seal."""
    bare = copy.deepcopy(notebook)
    bare.metadata.lnlib.pop("content", None)
    return sha256(json.dumps(bare, sort_keys=True))


def seal(path: Path, about: Mapping[str, Any]) -> None:
    """Write `about` and a digest of the content into the notebook at `path`."""
    notebook = read_notebook(path)
    notebook.metadata["lnlib"] = dict(about)
    write_notebook(notebook, path)
    notebook = read_notebook(path)  # what counts is what can be read back
    notebook.metadata.lnlib.content = _content(notebook)
    write_notebook(notebook, path)


def _unseal(path: Path, project: Project, *, failed: bool = False) -> Any:
    """Return the notebook at `path` if it is as its run wrote it.

    The seal of a run that failed has its `error`, so that it is no result by any name.
    """
    try:
        notebook = read_notebook(path)
        found = notebook.metadata.lnlib.content
        dict(notebook.metadata.lnlib.inputs)
    except Exception as error:  # of the file, or of a seal that lacks a key
        raise DamagedResult(f"{path} is not a whole result: {error!r}") from error
    if found != _content(notebook):
        try:
            verdicts_of(notebook, project)
            why = "a page, a cell or the seal itself"
        except DamagedResult as error:
            why = str(error)
        raise DamagedResult(f"{path} was changed after its run: {why}")
    if ("error" in notebook.metadata.lnlib) != failed:
        raise DamagedResult(f"{path} must {'not ' * (not failed)}be a run that failed")
    return notebook


def _result(path: Path, notebook: Any, project: Project) -> Result:
    try:
        found = verdicts_of(notebook, project)
    except DamagedResult as error:
        raise DamagedResult(f"{path}: {error}") from error
    return Result(path, found, bundles(notebook, RUN_MIME)[0], notebook.metadata.lnlib)


def read_result(path: Path, project: Project) -> Result:
    """Return the result at `path`, its seal verified and its verdicts judged again.

    It may be stale: ask :func:`status` first.

    Raises:
        DamagedResult: the file is not what a run wrote; the message says in what.
    """
    return _result(path, _unseal(path, project), project)


def surprises(result: Result, record: StudyRecord) -> list[str]:
    """Say what differs from the registry: a verdict, or a control that moved nothing.

    Without a control each claim has its expected verdict, and each law is met.  Under
    one, each claim that names it has the verdict it must move to, and the claim it
    leaves the expected one.  A claim of the book tier is not judged at quick.
    """
    control = result.run["control"]
    wanted = {c.id: (c.expected, "the registry expects") for c in record.claims}
    if control != "none":
        expected, wanted = wanted, {}
        for claim in record.claims:
            if effect := claim.controls.get(control):
                wanted[claim.id] = effect.verdict, f"control {control} must move it to"
                same = expected[effect.leaves][0]
                wanted[effect.leaves] = same, f"control {control} must leave it"
    told = ["its settings are not the ordinary ones"] if result.run["exploring"] else []
    for claim_id, (verdict, why) in wanted.items():
        found = result.verdicts.get(claim_id, "missing")
        if found not in (verdict, NOT_JUDGED):
            told.append(f"{claim_id} is {found}; {why} {verdict}")
    laws = [e for b in result.bundles for e in b["evidence"] if e["kind"] == "law"]
    missed = [e for e in laws if control == "none" and e["outcome"] != "met"]
    return told + [f"law {e['name']} is {e['outcome']}" for e in missed]
