"""`prepare` killed as nobody can catch it, and what it leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation import prepare as prepare_module
from block_recurrent.data.store import writer as writer_module
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError
from tests.data.preparation.test_prepare import contents
from tests.data.sources.conftest import write_files
from tests.support.vocabularies import prose

SHARD = 1 << 16
SCRIPT = f"""
import sys, time
from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation import prepare as prepare_module
from block_recurrent.data.store import writer

class Slow(writer.StoreWriter):
    def __init__(self, *arguments):
        super().__init__(*arguments, shard={SHARD})
    def add(self, document):
        super().add(document)
        time.sleep(0.02)

if __name__ == "__main__":
    prepare_module.StoreWriter = Slow
    prepare_module.prepare(PrepareConfig(source="text_folder", input=sys.argv[1], store=sys.argv[2], workers=2))
"""


def children_of(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_killed_and_run_again(tmp_path, monkeypatch):
    files = {f"train/{number:03}.txt": prose(number, 1500) for number in range(120)}
    write_files(tmp_path / "in", files)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [sys.executable, str(script), str(tmp_path / "in"), str(tmp_path / "s")]
    process = subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": os.getcwd()})
    progress = tmp_path / "s/.train.partial/progress.json"
    wait_until(progress.exists)
    workers = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    wait_until(lambda: not any(map(is_running, workers)))  # nobody is left behind
    with pytest.raises(InputError, match="no such folder"):
        TokenStore.open(tmp_path / "s" / "train")

    real, resumed = writer_module.StoreWriter, []

    def recorded(*arguments):
        writer = real(*arguments, shard=SHARD)
        resumed.append(writer.resumed)
        return writer

    monkeypatch.setattr(prepare_module, "StoreWriter", recorded)
    for folder in ("s", "whole"):
        config = PrepareConfig(
            source="text_folder", input=str(tmp_path / "in"), store=str(tmp_path / folder), workers=1
        )
        prepare_module.prepare(config)
    assert resumed[0]["records"] > 0
    assert resumed[1] is None
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")
