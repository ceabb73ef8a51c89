"""Real data: bundled by default, the standard benchmarks by checksum.

Remote files are downloaded once by pooch, or taken from the folder that `LNLIB_DATA`
names; either way their sha256 is verified.  Only text is parsed, nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lnlib.choices import choose

VARIABLE = "LNLIB_DATA"
GITHUB = "https://raw.githubusercontent.com"
ETT = f"{GITHUB}/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07"
CHAR_RNN = f"{GITHUB}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
GEOM_GCN = (
    f"{GITHUB}/graphdml-uiuc-jlu/geom-gcn/f1fc0d14b3b019c562737240d06ec83b07d16a8f"
)


class DataError(ValueError):
    """A data file or folder is missing or damaged."""


@dataclass(frozen=True)
class Dataset:
    """A data set: `features` (case, …), `labels` (case,) or None, and its origin.

    `names` are those of the features (for a text: its characters, in the order of their
    codes); `edges` (edge, 2) are the links of a graph.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray | None
    source: str
    licence: str
    names: tuple[str, ...] = ()
    edges: np.ndarray | None = None


class RemoteFile(NamedTuple):
    """A file below a data folder, its address and its sha256."""

    path: str
    url: str
    sha256: str


class Remote(NamedTuple):
    """How to read a remote data set, where it comes from, and its files."""

    read: Callable[..., dict[str, Any]]
    source: str
    licence: str
    files: tuple[RemoteFile, ...]


class Split(NamedTuple):
    """Disjoint, sorted indices of cases."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def names() -> list[str]:
    """Return the names of all data sets."""
    return [*BUNDLED, *REMOTE]


def load(name: str, *, folder: str | Path | None = None) -> Dataset:
    """Return the data set called `name`, from `folder` or from where `fetch` has it.

    Raises:
        ValueError: unknown name.
        DataError: a folder or file is missing or damaged, or a download failed.
    """
    choose("data set", name, names())
    if name in BUNDLED:
        return BUNDLED[name]()
    read, source, licence, _ = REMOTE[name]
    paths = verify(name, folder) if folder else fetch(name)
    return Dataset(name=name, source=source, licence=licence, **read(*paths))


def fetch(name: str, folder: str | Path | None = None) -> list[Path]:
    """Download what is missing or damaged of `name`; return the verified files.

    They go to `folder` or pooch's cache.  Without `folder`, those in the folder that
    `LNLIB_DATA` names are verified instead.  Bundled sets have no files.

    Raises:
        ValueError: unknown name.
        DataError: a download failed or does not have the expected sha256.
    """
    import pooch  # only here: it brings tqdm, which warns in a kernel

    if folder is None and os.environ.get(VARIABLE):
        return verify(name, os.environ[VARIABLE])
    root = Path(folder or pooch.os_cache("lnlib"))
    paths = []
    for path, url, sha256 in _files(name):
        target = root / path
        try:
            pooch.retrieve(url, f"sha256:{sha256}", target.name, target.parent)
        except OSError as error:
            raise DataError(
                f"{target} could not be downloaded from {url}: {error}. Check the "
                f"connection, or name a folder that holds {path} in {VARIABLE}."
            ) from error
        except ValueError as error:
            raise DataError(
                f"{url} must have sha256 {sha256}; {error} The file at its origin has "
                "changed, or the download was disturbed: try again."
            ) from error
        paths.append(target)
    return paths


def verify(name: str, folder: str | Path) -> list[Path]:
    """Return the files of `name` in `folder`, if all are there and undamaged.

    Raises:
        ValueError: unknown name.
        DataError: the folder or a file is missing, or a file has another sha256.
    """
    root, files, paths = Path(folder), _files(name), []
    if files and not root.is_dir():
        raise DataError(
            f"the data folder must exist; received {str(root.absolute())!r}. Create "
            f"it with `python -m lnlib data`, or correct {VARIABLE}."
        )
    for path, url, sha256 in files:
        target = root / path
        mend = f"Put the file from {url} there, or unset {VARIABLE}."
        if not target.is_file():
            raise DataError(f"{target} is missing. {mend}")
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise DataError(
                f"{target} must have sha256 {sha256}; received {found}. {mend}"
            )
        paths.append(target)
    return paths


def _files(name: str) -> tuple[RemoteFile, ...]:
    choose("data set", name, names())
    return REMOTE[name].files if name in REMOTE else ()


def split(
    labels: ArrayLike | int,
    rng: np.random.Generator,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
) -> Split:
    """Return train, validation and test indices, stratified by `labels` (case,).

    A whole number instead of labels means that many cases, not stratified.  The same
    state of `rng` gives the same split.

    Raises:
        ValueError: fractions that are not three positive numbers with sum 1.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(
            "fractions must be three positive numbers with sum 1 (train, validation, "
            f"test); received {tuple(fractions)}"
        )
    from sklearn.model_selection import train_test_split

    seed = int(rng.integers(2**32))
    strata = None if np.ndim(labels) == 0 else np.asarray(labels)
    cases = np.arange(np.asarray(labels).item() if strata is None else len(strata))
    n_test, n_validation = (round(f * len(cases)) for f in fractions[:0:-1])
    rest, test = train_test_split(
        cases, test_size=n_test, stratify=strata, random_state=seed
    )
    train, validation = train_test_split(
        rest,
        test_size=n_validation,
        stratify=None if strata is None else strata[rest],
        random_state=seed,
    )
    return Split(np.sort(train), np.sort(validation), np.sort(test))


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Dataset(
        "digits",
        digits.data,
        digits.target,
        "scikit-learn, from UCI Optical Recognition of Handwritten Digits",
        "CC BY 4.0",
        names=tuple(digits.feature_names),
    )


def _read_series(path: Path) -> dict[str, Any]:
    """Read a CSV file with a date column and one column per channel."""
    header = path.read_text(encoding="utf-8").split("\n", 1)[0].strip().split(",")
    values = np.loadtxt(
        path, delimiter=",", skiprows=1, usecols=range(1, len(header)), ndmin=2
    )
    return {"features": values, "labels": None, "names": tuple(header[1:])}


def _read_text(path: Path) -> dict[str, Any]:
    """Read a text as codes (character,) into its sorted characters."""
    text = np.array(list(path.read_text(encoding="utf-8")))
    characters, codes = np.unique(text, return_inverse=True)
    return {"features": codes, "labels": None, "names": tuple(characters.tolist())}


def _read_graph(edges: Path, nodes: Path) -> dict[str, Any]:
    """Read the two tab-separated files of a geom-gcn graph, ordered by node id."""
    rows = [r.split("\t") for r in nodes.read_text(encoding="utf-8").splitlines()[1:]]
    rows.sort(key=lambda row: int(row[0]))
    return {
        "features": np.array([row[1].split(",") for row in rows], dtype=float),
        "labels": np.array([row[2] for row in rows], dtype=int),
        "edges": np.loadtxt(edges, dtype=int, skiprows=1, ndmin=2),
    }


BUNDLED: dict[str, Callable[[], Dataset]] = {"digits": _digits}
REMOTE = {
    "etth1": Remote(
        _read_series,
        "zhouhaoyi/ETDataset",
        "CC BY-ND 4.0",
        (
            RemoteFile(
                "ETTh1.csv",
                f"{ETT}/ETT-small/ETTh1.csv",
                "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
            ),
        ),
    ),
    "tinyshakespeare": Remote(
        _read_text,
        "karpathy/char-rnn",
        "public domain text",
        (
            RemoteFile(
                "tinyshakespeare.txt",
                f"{CHAR_RNN}/data/tinyshakespeare/input.txt",
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        ),
    ),
    "webkb-wisconsin": Remote(
        _read_graph,
        "graphdml-uiuc-jlu/geom-gcn (WebKB, University of Wisconsin)",
        "research data",
        (
            RemoteFile(
                "webkb-wisconsin/out1_graph_edges.txt",
                f"{GEOM_GCN}/new_data/wisconsin/out1_graph_edges.txt",
                "ebd213511c88fce1eda450c2f920600c4b8cbb38f02384856bcc47c6ec1807ae",
            ),
            RemoteFile(
                "webkb-wisconsin/out1_node_feature_label.txt",
                f"{GEOM_GCN}/new_data/wisconsin/out1_node_feature_label.txt",
                "a32b0aa38d42f0d36841e8a8cb646d197f0ff33a182ac75a2b4476aeed3c7e4b",
            ),
        ),
    ),
}
