"""`prepare` killed by SIGKILL, and the files that it leaves."""

import os
import subprocess
import sys

import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation import prepare as prepare_module
from block_recurrent.data.store import writer as writer_module
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError
from tests.data.preparation.test_prepare import contents
from tests.data.sources.conftest import write_files
from tests.support.vocabularies import prose

SHARD = 1 << 14
# Prints the number of its worker processes once a checkpoint is on disk, and waits to be killed.
SCRIPT = f"""
import multiprocessing, signal, sys
from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation import prepare as prepare_module
from block_recurrent.data.preparation import workers
from block_recurrent.data.store import writer

class Waiting(writer.StoreWriter):
    def __init__(self, folder, *arguments):
        super().__init__(folder, *arguments, shard={SHARD})
        self.progress = folder / "progress.json"
    def add(self, document):
        super().add(document)
        if self.progress.exists():
            print(len(multiprocessing.active_children()), flush=True)
            signal.pause()

if __name__ == "__main__":
    workers._GROUP_BYTES = {SHARD}
    prepare_module.StoreWriter = Waiting
    prepare_module.prepare(PrepareConfig(source="text_folder", input=sys.argv[1], store=sys.argv[2], workers=2))
"""


def test_a_killed_run_leaves_no_workers_and_is_continued(tmp_path, monkeypatch):
    write_files(tmp_path / "in", {f"train/{number:03}.txt": prose(number, 500) for number in range(40)})
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [sys.executable, str(script), str(tmp_path / "in"), str(tmp_path / "s")]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = process.stdout.readline()
        process.kill()
        assert workers == "2\n"
        # The workers inherited the pipe: it ends when the last of them has ended.
        assert process.communicate(timeout=20)[0] == ""
    with pytest.raises(InputError, match="no such folder"):
        TokenStore.open(tmp_path / "s" / "train")

    real, resumed = writer_module.StoreWriter, []

    def recorded(*arguments):
        writer = real(*arguments, shard=SHARD)
        resumed.append(writer.resumed)
        return writer

    monkeypatch.setattr(prepare_module, "StoreWriter", recorded)
    for folder in ("s", "whole"):
        prepare_module.prepare(
            PrepareConfig(source="text_folder", input=str(tmp_path / "in"), store=str(tmp_path / folder), workers=1)
        )
    assert resumed[0]["records"] > 0
    assert resumed[1] is None
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")
