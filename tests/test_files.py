"""Atomic writes, locks and paths."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from block_recurrent import files


def test_paths_are_absolute_and_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    assert files.resolve("a/b") == epath.Path(tmp_path / "a" / "b")
    assert files.resolve("~/a") == epath.Path("/somewhere/a")
    assert str(files.resolve("gs://bucket/~a")) == "gs://bucket/~a"
    assert files.is_remote("gs://bucket/a")
    assert not files.is_remote(Path("a"))


def test_a_file_is_replaced_atomically(tmp_path):
    path = tmp_path / "file"
    files.write_whole(path, "é")
    assert path.read_bytes() == "é".encode()
    files.write_whole(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_have_their_own_neighbours(tmp_path):
    path = tmp_path / "file"
    assert files.partial_path(path) == epath.Path(tmp_path / "file.partial")
    assert files.partial_path(path, "a") == epath.Path(tmp_path / "file.a.partial")
    files.partial_path(path, "b").write_text("half of it")
    files.write_whole(path, "whole", writer="a")
    assert path.read_text() == "whole"
    assert files.partial_path(path, "b").read_text() == "half of it"


def test_a_failed_write_does_not_change_the_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_whole(path, "before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_held_by_one_process_until_it_ends(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import sys; from block_recurrent import files\n"
        f"with files.lock({str(path)!r}, 'the first'): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(files.LockedError, match="the first"), files.lock(path, "the second"):
            pass
        first.kill()
    with files.lock(path, "the second") as file:
        assert path.read_text() == "the second"
        assert os.path.samestat(os.fstat(file.fileno()), path.stat())


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = epath.Path(tmp_path / "new" / "folder")

    def fail(partial: epath.Path) -> None:
        (partial / "a").write_text("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), files.whole_folder(folder, last=("z",)) as partial:
        fail(partial)
    assert list(tmp_path.iterdir()) == []
    with files.whole_folder(folder, last=("a",)) as partial:
        (partial / "a").write_text("a")
        (partial / "b").write_text("b")
        assert not folder.exists()
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
