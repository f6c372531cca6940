"""Whole files under failure: a block that raises, a full disk, a kill at any moment, two writers at once."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from papershelf_core.files import check_writable, replacing, sha256, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path):
    target = tmp_path / "deep" / "a.json"
    write_text(target, "old")
    with replacing(target) as scratch:
        scratch.write_text("new")
        assert target.read_text() == "old"
        assert scratch.suffix == ".json"
    assert target.read_text() == "new"
    assert names(target.parent) == ["a.json"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, error):
    def half_a_file():
        with replacing(tmp_path / "a.txt") as scratch:
            scratch.write_text("half")
            raise error

    def half_a_folder():
        with replacing(tmp_path / "folder") as scratch:
            scratch.mkdir()
            (scratch / "half").touch()
            raise error

    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(type(error)):
        half_a_file()
    assert (tmp_path / "a.txt").read_text() == "old"
    with pytest.raises(type(error)):
        half_a_folder()
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_takes_an_empty_place_and_no_other(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    write_text(tmp_path / "full" / "kept", "1")
    write_text(tmp_path / "file", "2")
    for target in ("absent", "empty"):
        with replacing(tmp_path / target) as scratch:
            scratch.mkdir()
            (scratch / "in").touch()
        assert names(tmp_path / target) == ["in"]
    for target in ("full", "file"):
        with pytest.raises(FileExistsError, match="is not an empty folder"), replacing(tmp_path / target) as scratch:
            scratch.mkdir()
    assert names(tmp_path) == ["absent", "empty", "file", "full"]
    assert (tmp_path / "full" / "kept").read_text() == "1"


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A limit on the size of written files stands for the full disk."""
    write_text(tmp_path / "a.txt", "old")
    script = (
        "import resource, signal, sys; from papershelf_core.files import write_text;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "write_text(sys.argv[1], 'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.txt")], capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_killed_writers_and_two_at_once_never_leave_half_a_file(tmp_path):
    target = tmp_path / "a.txt"
    script = (
        "import sys; from papershelf_core.files import write_text\n"
        "while True: write_text(sys.argv[1], sys.argv[2] * 200_000)"
    )
    seen = set()
    for _ in range(4):
        writers = [subprocess.Popen([sys.executable, "-c", script, str(target), letter]) for letter in "ab"]
        deadline = time.monotonic() + 20
        while not target.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(40):
            text = target.read_text()
            assert text in ("a" * 200_000, "b" * 200_000)
            seen.add(text[0])
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        assert target.read_text() in ("a" * 200_000, "b" * 200_000)
    assert seen


def test_a_place_that_cannot_be_written_is_said_beforehand(tmp_path):
    check_writable(tmp_path / "new" / "a.txt")
    assert names(tmp_path / "new") == []
    write_text(tmp_path / "file", "x")
    with pytest.raises(IsADirectoryError, match="give the name of a file"):
        check_writable(tmp_path)
    with pytest.raises(OSError, match=r"file/a\.txt cannot be written .*; choose another place"):
        check_writable(tmp_path / "file" / "a.txt")


def test_checksum(tmp_path):
    write_text(tmp_path / "abc", "abc")
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")  # FIPS 180-2, appendix B.1
    assert os.listdir(tmp_path) == ["abc"]
