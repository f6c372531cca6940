"""Pieces of jobs: found again by their own job, by no other, and never damaged."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from papershelf_core.files import write_text
from papershelf_core.work_folder import WorkFolder, identity


def put(work, name, content):
    with work.writing(name) as scratch:
        scratch.write_bytes(content)


def test_a_piece_is_found_again_by_its_job_alone(tmp_path):
    put(WorkFolder(tmp_path, {"seed": 1, "job": {"b": 2, "a": [1.5]}}), "0001.npz", b"one")
    same = WorkFolder(tmp_path, {"job": {"a": [1.5], "b": 2}, "seed": 1})  # the order of keys says nothing
    assert same.finished("0001.npz").read_bytes() == b"one"
    assert same.finished("0001.npz").suffix == ".npz"
    assert same.finished("0002.npz") is None
    assert same.finished("1.npz") is None
    assert json.loads((same.path / "identity.json").read_text())["job"] == {"a": [1.5], "b": 2}
    assert WorkFolder(tmp_path, {"seed": 2, "job": {"b": 2, "a": [1.5]}}).finished("0001.npz") is None
    assert same.damaged == []


@given(st.binary(min_size=1, max_size=60), st.data())
def test_any_flipped_bit_any_cut_any_growth_is_seen(tmp_path_factory, content, data):
    work = WorkFolder(tmp_path_factory.mktemp("work"), {"x": 1})
    put(work, "piece.bin", content)
    piece = work.finished("piece.bin")
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    harm = data.draw(st.sampled_from([bytes(flipped), content[: bit // 8], content + b"\0"]))
    piece.write_bytes(harm)
    assert work.finished("piece.bin") is None
    assert work.damaged == ["piece.bin"]
    put(work, "piece.bin", content)
    assert work.finished("piece.bin").read_bytes() == content


def test_what_fails_half_way_is_no_piece(tmp_path):
    work = WorkFolder(tmp_path, {"x": 1})

    def half():
        with work.writing("piece.txt") as scratch:
            scratch.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert work.finished("piece.txt") is None
    assert [path.name for path in work.path.iterdir()] == ["identity.json"]


def test_two_runs_that_write_a_piece_differently_leave_a_whole_one(tmp_path):
    first, second = (WorkFolder(tmp_path, {"x": 1}) for _ in range(2))
    put(first, "piece", b"one")
    put(second, "piece", b"two")
    assert first.finished("piece").read_bytes() == second.finished("piece").read_bytes()
    assert first.finished("piece").read_bytes() in (b"one", b"two")


def test_identity_holds_version_and_content_of_inputs(tmp_path):
    write_text(tmp_path / "table.csv", "1,2")
    write_text(tmp_path / "copy.csv", "1,2")
    found = identity("papershelf-core", {"seed": 1}, {"table": tmp_path / "table.csv"})
    assert found == identity("papershelf-core", {"seed": 1}, {"table": tmp_path / "copy.csv"})
    assert found["version"].count(".") == 2
    write_text(tmp_path / "copy.csv", "1,3")
    assert found != identity("papershelf-core", {"seed": 1}, {"table": tmp_path / "copy.csv"})
    with pytest.raises(ValueError, match="Out of range float values"):
        WorkFolder(tmp_path, {"x": float("nan")})
