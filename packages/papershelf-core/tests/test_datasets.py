import functools
import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest
from papershelf_core import datasets
from papershelf_core.cli import main
from papershelf_core.datasets import catalogue

CONTENT = b"a,b\n1,2\n"


def install(monkeypatch, url, local="toy/toy.csv.gz", origin=""):
    file = datasets.FileInfo("toy.csv", local, len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), url)
    toy = datasets.DatasetInfo("toy", "A toy", "CC0-1.0", "nobody", "https://example.org/toy", (file,), origin)
    monkeypatch.setattr(catalogue, "catalog", lambda: (toy,))


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A catalogue of one file, an empty cache and no local folder."""
    monkeypatch.delenv("PAPERSHELF_DATA", raising=False)
    monkeypatch.setenv("PAPERSHELF_CACHE", str(tmp_path / "cache"))
    return functools.partial(install, monkeypatch)


@pytest.fixture
def server(tmp_path):
    """Serve a folder on loopback; yields the folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_catalogue_is_whole():
    entries = datasets.catalog()
    assert len(entries) == 14
    for entry in entries:
        assert entry.licence
        assert entry.citation
        for file in entry.files:
            assert len(file.sha256) == 64
            assert file.bytes > 0
            assert file.url or entry.origin, f"{entry.name}/{file.name} has neither a download nor an origin"


def test_download_is_verified_and_kept(toy, server, tmp_path):
    folder, address = server
    (folder / "toy.csv").write_bytes(CONTENT)
    toy(f"{address}/toy.csv")
    found = datasets.path("toy", "toy.csv")
    assert found.read_bytes() == CONTENT
    assert found.is_relative_to(tmp_path / "cache")
    (folder / "toy.csv").unlink()
    assert datasets.path("toy", "toy.csv") == found


def test_a_download_of_another_content_is_refused_and_not_kept(toy, server, tmp_path):
    folder, address = server
    (folder / "toy.csv").write_bytes(b"other")
    toy(f"{address}/toy.csv")
    with pytest.raises(datasets.DatasetCorrupt, match="has SHA-256"):
        datasets.path("toy", "toy.csv")
    assert not (tmp_path / "cache").exists()


def test_unavailable_says_what_to_do(toy, server, tmp_path):
    _, address = server
    toy(f"{address}/toy.csv")
    with pytest.raises(datasets.DatasetUnavailable) as caught:
        datasets.path("toy", "toy.csv")
    for part in (
        "toy/toy.csv",
        f"{address}/toy.csv",
        hashlib.sha256(CONTENT).hexdigest(),
        str(tmp_path / "cache" / "toy"),
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_repackaged_file_names_its_origin(toy):
    toy(None, origin="made from elsewhere")
    with pytest.raises(datasets.DatasetUnavailable, match="no download \\(made from elsewhere\\)"):
        datasets.path("toy", "toy.csv")


@pytest.mark.parametrize("packed", [True, False])
def test_local_folder_comes_first_packed_or_plain(toy, monkeypatch, tmp_path, packed):
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    if packed:
        (folder / "toy.csv.gz").write_bytes(gzip.compress(CONTENT))
    else:
        (folder / "toy.csv").write_bytes(CONTENT)
    monkeypatch.setenv("PAPERSHELF_DATA", str(tmp_path / "data"))
    toy("http://127.0.0.1:9/unreachable")
    assert datasets.path("toy", "toy.csv").read_bytes() == CONTENT
    assert datasets.path("toy", "toy.csv").name == "toy.csv"


def test_a_truncated_local_file_is_named(toy, monkeypatch, tmp_path):
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    (folder / "toy.csv.gz").write_bytes(gzip.compress(CONTENT)[:-6])
    monkeypatch.setenv("PAPERSHELF_DATA", str(tmp_path / "data"))
    toy(None)
    with pytest.raises(datasets.DatasetCorrupt, match="no whole gzip file"):
        datasets.path("toy", "toy.csv")


def test_a_local_folder_that_is_none_is_named(toy, monkeypatch):
    monkeypatch.setenv("PAPERSHELF_DATA", "no-such-folder")
    toy(None)
    with pytest.raises(datasets.DatasetUnavailable, match="PAPERSHELF_DATA='no-such-folder' is not a folder"):
        datasets.path("toy", "toy.csv")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.path("adlut", "x"), "did you mean adult"),
        (lambda: datasets.path("zzzz", "x"), "is not in the catalogue; it has "),
        (lambda: datasets.path("adult", "x"), "it has adult-train.csv"),
        (lambda: datasets.load("juno"), "has no loader"),
        (lambda: datasets.load("bank", split="test"), "split='test' of 'bank' must be one of all"),
        (lambda: datasets.load("adult", part="test"), "part is no option of 'adult'; it takes split"),
        (lambda: datasets.load("wikitext2"), "split of 'wikitext2' must be given"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_command_line_lists_checks_and_refuses(toy, capsys, server):
    folder, address = server
    (folder / "toy.csv").write_bytes(CONTENT)
    toy(f"{address}/toy.csv")
    assert main(["list"]) == 0
    assert "CC0-1.0" in capsys.readouterr().out
    assert main(["check"]) == 0
    assert "toy/toy.csv: not here" in capsys.readouterr().out
    assert main(["fetch", "toy"]) == 0
    kept = capsys.readouterr().out.strip()
    assert main(["check", "toy"]) == 0
    assert "toy/toy.csv: good" in capsys.readouterr().out
    with open(kept, "ab") as stream:
        stream.write(b"more")
    assert main(["check", "toy"]) == 3
    assert "CORRUPT" in capsys.readouterr().out
    assert main(["fetch", "toi"]) == 3
    assert "did you mean toy" in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "rows", "columns", "mean"),
    [
        # row counts and label shares as the sources publish them (Adult: 48 842 rows, 23.93 % above 50K; Bank: 45 211,
        # 11.7 %; Credit: 30 000, 22.12 %; flights: 327 346 with a recorded arrival)
        ("adult", 48_842, 14, 0.2393),
        ("bank", 45_211, 16, 0.1170),
        ("credit", 30_000, 23, 0.2212),
        ("flights", 327_346, 9, 0.2371),
        ("higgs", 7_500, 28, 0.5317),
        ("ltr", 3_773, 300, 1.2725),
    ],
)
def test_tables_have_their_published_shape(name, rows, columns, mean):
    data = datasets.load(name)
    assert data.X.shape == (rows, columns)
    assert data.y.mean() == pytest.approx(mean, abs=5e-5)
    assert data.feature_names == tuple(data.X.columns)


@pytest.mark.data
def test_splits_share_their_categories():
    train, test, whole = (datasets.load("adult", split=split) for split in ("train", "test", "all"))
    assert len(train.y) + len(test.y) == len(whole.y) == 48_842
    assert len(test.y) == 16_281
    assert (train.X.dtypes == test.X.dtypes).all()
    assert "native_country" in train.categorical


@pytest.mark.data
def test_queries_of_the_ranking_sample():
    data = datasets.load("ltr", split="train")
    assert len(np.unique(data.groups)) == 201
    assert len(data.groups) == len(data.y) == 3005


@pytest.mark.data
def test_bandit_log_is_consistent():
    log = datasets.load("obd", policy="random", campaign="all")
    assert log.affinity.shape == (10_000, 80)
    # a uniformly random policy over 80 items
    assert np.allclose(log.propensity, 1 / 80)
    assert set(log.position) == {0, 1, 2}
    assert log.click.mean() == pytest.approx(0.0038)
    assert list(log.items.index) == list(range(80))
    assert (np.diff(log.timestamp) >= np.timedelta64(0)).all()


@pytest.mark.data
def test_texts_images_and_short_videos():
    assert datasets.load("wikitext2", split="valid").text.count(" = Homarus gammarus = ") == 1
    images = datasets.load("mnist", split="test")
    assert images.X.shape == (10_000, 28, 28)
    assert np.bincount(images.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    features = datasets.load("kuairand")
    assert (len(features.users), len(features.videos)) == (27_285, 7_583)
