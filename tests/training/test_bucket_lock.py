"""The lock in a bucket, on an object in memory and with a clock of the test."""

import json
import os
import platform
import subprocess
import sys
import time

import pytest

from block_recurrent.files import LockedError
from block_recurrent.training import bucket_lock
from block_recurrent.training.bucket_lock import ChangedError, hold_object


class Object:
    """An object of a bucket; `content` is None if it does not exist."""

    def __init__(self, content: bytes | None = None):
        self.content, self.generation = content, 0 if content is None else 7

    def read(self) -> tuple[bytes, int] | None:
        return None if self.content is None else (self.content, self.generation)

    def write(self, content: bytes, generation: int) -> int:
        self._check(generation)
        self.content, self.generation = content, self.generation + 1
        return self.generation

    def delete(self, generation: int) -> None:
        self._check(generation)
        self.content = None

    def _check(self, generation: int) -> None:
        if generation != (0 if self.content is None else self.generation):
            raise ChangedError


def left_behind(host: str, process: int) -> bytes:
    return json.dumps({"note": "process of another run", "host": host, "process": process}).encode()


def refresh(item: Object) -> None:
    """Writes the object as its living holder does."""
    item.write(item.content or b"", item.generation)


def test_the_lock_is_an_object_while_it_is_held():
    item, said = Object(), []
    with hold_object(item, "mine", notify=said.append):
        assert json.loads(item.content or b"")["note"] == "mine"
    assert item.content is None
    assert said == []


def test_two_processes_cannot_create_the_object():
    """Both see no object; the slower one finds that it exists, and a sign of life of the faster one refuses it."""
    item = Object()
    read, seen = item.read, []

    def late_read() -> tuple[bytes, int] | None:
        seen.append(read())
        if len(seen) == 1:  # the other process creates it between this look and the write
            item.write(left_behind("elsewhere", 1), 0)
            return None
        return read()

    item.read = late_read
    with pytest.raises(LockedError, match="process of another run"):
        hold_object(item, "mine", notify=lambda message: None, sleep=lambda s: refresh(item)).__enter__()


def test_a_live_holder_is_named():
    item, said = Object(left_behind("elsewhere", 1)), []
    with pytest.raises(LockedError, match="process of another run"):
        hold_object(item, "mine", notify=said.append, sleep=lambda s: refresh(item)).__enter__()
    assert "process of another run" in said[0]


def test_a_lock_that_nobody_writes_is_taken_after_the_lease():
    item, slept = Object(left_behind("elsewhere", 1)), []
    with hold_object(item, "mine", notify=lambda message: None, lease_seconds=60, sleep=slept.append):
        assert json.loads(item.content or b"")["note"] == "mine"
    assert 60 <= sum(slept) < 70


def test_the_lock_of_a_process_that_ended_on_this_machine_is_taken_at_once():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    slept = []
    item = Object(left_behind(platform.node(), ended.pid))
    with hold_object(item, "mine", notify=lambda message: None, sleep=slept.append):
        assert json.loads(item.content or b"")["process"] == os.getpid()
    assert slept == []


def test_a_lost_lock_is_reported_and_not_deleted(monkeypatch):
    monkeypatch.setattr(bucket_lock, "_SECONDS_BETWEEN_WRITES", 0.01)
    item, said = Object(), []
    with hold_object(item, "mine", notify=said.append):
        item.content, item.generation = b"theirs", 100
        while not said:
            time.sleep(0.001)
    assert item.content == b"theirs"
    assert "another process has taken the lock" in said[0]
