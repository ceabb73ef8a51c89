"""Data comes with the right checksum or not at all; the downloads are real ones."""

import functools
import hashlib
import http.server
import os
import threading

import numpy as np
import pooch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnlib import data

FAKES = {
    "ETTh1.csv": "date,A,B\n2016-07-01 00:00:00,1.5,2\n2016-07-01 01:00:00,3,-4e-1\n",
    "tinyshakespeare.txt": "to be,\nor not to be",
    "webkb-wisconsin/out1_graph_edges.txt": "node_id\tnode_id\n0\t1\n2\t0\n",
    "webkb-wisconsin/out1_node_feature_label.txt": (
        "node_id\tfeature\tlabel\n2\t0,0,1\t4\n0\t1,0,0\t3\n1\t0,1,0\t0\n"
    ),
}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Serve the fake files; yield the folder and the address."""
    folder = tmp_path_factory.mktemp("origin")
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


@pytest.fixture
def origin(server, tmp_path, monkeypatch):
    """Fake origins and an empty cache; return the folder that is served."""
    folder, address = server
    remote = {}
    for name, entry in data.REMOTE.items():
        files = []
        for file in entry.files:
            (folder / file.path).parent.mkdir(exist_ok=True)
            (folder / file.path).write_bytes(FAKES[file.path].encode())
            sha256 = hashlib.sha256(FAKES[file.path].encode()).hexdigest()
            files.append(data.RemoteFile(file.path, f"{address}/{file.path}", sha256))
        remote[name] = entry._replace(files=tuple(files))
    monkeypatch.setattr(data, "REMOTE", remote)
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    monkeypatch.delenv("LNLIB_DATA", raising=False)
    return folder


def test_digits_are_bundled(monkeypatch):
    monkeypatch.setenv("LNLIB_DATA", "/there/is/no/such/folder")  # not needed
    digits = data.load("digits")
    assert digits.features.shape == (1797, 64)
    assert np.bincount(digits.labels).tolist() == [
        *(178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
    ]
    assert digits.source
    assert digits.licence
    assert data.fetch("digits") == data.verify("digits", "/no/folder") == []


def test_series(origin):
    series = data.load("etth1")
    np.testing.assert_array_equal(series.features, [[1.5, 2], [3, -0.4]])
    assert series.names == ("A", "B")
    assert series.labels is None
    assert series.licence == "CC BY-ND 4.0"


def test_text(origin):
    text = data.load("tinyshakespeare")
    decoded = "".join(text.names[code] for code in text.features)
    assert decoded == FAKES["tinyshakespeare.txt"]
    assert list(text.names) == sorted(set(decoded))


def test_graph(origin):
    graph = data.load("webkb-wisconsin")
    np.testing.assert_array_equal(graph.features, np.eye(3))  # in order of node id
    assert graph.labels.tolist() == [3, 0, 4]
    assert graph.edges.tolist() == [[0, 1], [2, 0]]


@pytest.mark.parametrize("name", sorted(data.REMOTE))
def test_a_download_is_made_once_and_repaired(name, origin, tmp_path):
    paths = data.fetch(name, tmp_path / "mine")
    assert paths == data.verify(name, tmp_path / "mine")
    paths[0].write_text("damaged")
    assert data.fetch(name, tmp_path / "mine") == paths
    assert paths[0].read_text() == FAKES[str(paths[0].relative_to(tmp_path / "mine"))]
    for file in data.REMOTE[name].files:
        (origin / file.path).unlink()  # from here on without the origin
    assert data.fetch(name, tmp_path / "mine") == paths


def test_a_changed_origin_is_refused(origin, tmp_path):
    (origin / "ETTh1.csv").write_text("date,A\nnever,666\n")
    wrong = hashlib.sha256(b"date,A\nnever,666\n").hexdigest()
    with pytest.raises(data.DataError, match=r"ETTh1.csv must have sha256") as error:
        data.load("etth1")
    assert wrong in str(error.value)
    assert data.REMOTE["etth1"].files[0].sha256 in str(error.value)
    assert not list((tmp_path / "cache").glob("*"))  # nothing bad is left behind


def test_a_missing_origin_says_what_to_do(origin):
    (origin / "ETTh1.csv").unlink()
    with pytest.raises(data.DataError, match=r"404.*ETTh1.csv in LNLIB_DATA"):
        data.load("etth1")


@pytest.mark.parametrize("name", sorted(data.REMOTE))
def test_lnlib_data_names_a_folder(name, origin, monkeypatch):
    monkeypatch.setenv("LNLIB_DATA", str(origin))
    monkeypatch.setattr(pooch, "retrieve", None)  # no download
    from_variable = data.load(name)
    assert data.fetch(name) == data.verify(name, origin)
    monkeypatch.delenv("LNLIB_DATA")
    from_argument = data.load(name, folder=origin)
    np.testing.assert_array_equal(from_variable.features, from_argument.features)


def test_a_damaged_file_in_the_folder_is_refused(origin, monkeypatch):
    monkeypatch.setenv("LNLIB_DATA", str(origin))
    path = origin / "tinyshakespeare.txt"
    path.write_text("or not")
    with pytest.raises(data.DataError) as error:
        data.load("tinyshakespeare")
    for part in (
        str(path),
        hashlib.sha256(b"or not").hexdigest(),
        *data.REMOTE["tinyshakespeare"].files[0],
        "unset LNLIB_DATA",
    ):
        assert part in str(error.value)


def test_a_missing_file_or_folder_is_refused(origin, monkeypatch):
    monkeypatch.setenv("LNLIB_DATA", str(origin))
    (origin / "ETTh1.csv").unlink()
    with pytest.raises(data.DataError, match=r"ETTh1.csv is missing. Put the file"):
        data.load("etth1")
    monkeypatch.setenv("LNLIB_DATA", str(origin / "nowhere"))
    with pytest.raises(data.DataError, match=r"must exist; received '.*nowhere'"):
        data.load("etth1")


@pytest.mark.parametrize("call", [data.load, data.fetch])
def test_an_unknown_name_is_refused(call):
    expected = "digits, etth1, tinyshakespeare, webkb-wisconsin; .* mean 'digits'"
    with pytest.raises(ValueError, match=expected):
        call("digit")


@pytest.mark.skipif(not os.environ.get("LNLIB_DATA"), reason="LNLIB_DATA is not set")
def test_the_real_files():
    assert data.load("etth1").features.shape == (17420, 7)
    text = data.load("tinyshakespeare")
    assert (len(text.features), len(text.names)) == (1115394, 65)
    graph = data.load("webkb-wisconsin")
    assert graph.features.shape == (251, 1703)
    assert graph.edges.shape == (515, 2)
    assert np.unique(graph.labels).tolist() == [0, 1, 2, 3, 4]


def test_addresses_are_pinned_to_a_commit():
    files = [file for remote in data.REMOTE.values() for file in remote.files]
    for file in files:
        commit = file.url.removeprefix(f"{data.GITHUB}/").split("/")[2]
        assert len(commit) == 40
        assert len(file.sha256) == 64
    assert len({file.path for file in files}) == len(files)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.lists(st.integers(10, 40), min_size=1, max_size=4))
def test_a_split_is_complete_disjoint_and_stratified(seed, sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    parts = data.split(labels, np.random.default_rng(seed), (0.5, 0.25, 0.25))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part, fraction in zip(parts, (0.5, 0.25, 0.25), strict=True):
        counts = np.bincount(labels[part], minlength=len(sizes))
        assert np.abs(counts - fraction * np.array(sizes)).max() < 2


def test_a_split_depends_on_its_generator_alone():
    first, again, other = (data.split(50, np.random.default_rng(s)) for s in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first.test != other.test).any()
    assert [len(part) for part in first] == [30, 10, 10]


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.5, 0.5), (1.0, 0.0, 0.0)])
def test_bad_fractions_are_refused(fractions):
    with pytest.raises(ValueError, match="three positive numbers with sum 1"):
        data.split(50, np.random.default_rng(0), fractions)
