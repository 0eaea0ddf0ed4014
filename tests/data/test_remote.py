"""Stores and sources on `gs://`, tested with a fake server."""

import os
import shutil
import subprocess
import sys

import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation import output as output_module
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.store.token_store import TokenStore
from tests.data.preparation.test_prepare import contents
from tests.data.sources.conftest import write_files
from tests.support.gcs_server import serving
from tests.support.vocabularies import prose

SCRIPT = """
import sys
sys.modules["tensorflow"] = None  # makes epath use gcsfs, as in an installation without the extra `data`
from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.store.token_store import TokenStore
config = PrepareConfig(source="text_folder", input="gs://bucket/data", store="gs://bucket/stores/x", workers=1)
first, again = prepare(config), prepare(config)
assert [s.unchanged for s in first + again] == [False, False, True, True]
for summary in first:
    store = TokenStore.open(summary.path)
    store.verify()
    for document, name in enumerate(store.names):
        print(summary.metadata.split, name, bytes(int(i) - 3 for i in store.read(document, 0, 10**6)).decode())
"""


def test_text_and_stores_in_a_bucket(tmp_path):
    pytest.importorskip("gcsfs", reason="the extra `gcs` is not installed")
    with serving() as (address, objects):
        for number in range(3):
            objects[f"data/train/deep/{number}.txt"] = f"text{number}".encode()
        objects["data/validation/v.txt"] = b"held_out"
        environment = {
            **os.environ,
            "STORAGE_EMULATOR_HOST": address,
            "TENSORSTORE_GCS_HTTP_URL": address,
            "GCE_METADATA_ROOT": "127.0.0.1:1",
            "TMPDIR": str(tmp_path),
            "PYTHONPATH": os.getcwd(),
        }
        ran = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        assert "stores/x/train/store.json" in objects
    assert ran.stdout.splitlines() == [
        *(f"train train/deep/{number}.txt text{number}" for number in range(3)),
        "validation validation/v.txt held_out",
    ]


def test_an_interrupted_upload_is_finished(tmp_path, monkeypatch):
    """The output is treated as remote: built in another folder, then copied file by file."""
    write_files(tmp_path / "in", {"train/a.txt": prose(1, 500), "test/b.txt": prose(2, 50)})
    real = output_module.StoreOutput.__init__

    def remote(self, root):
        real(self, root)
        self._remote, self._work = True, tmp_path / "work"

    monkeypatch.setattr(output_module.StoreOutput, "__init__", remote)
    config = PrepareConfig(source="text_folder", input=str(tmp_path / "in"), store=str(tmp_path / "s"), workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # the run dies before it removes its work folder
        prepare(config)
    whole = contents(tmp_path / "s")
    (tmp_path / "s/train/store.json").unlink()  # ... and before it writes the last files
    (tmp_path / "s/train/tokens/zarr.json").unlink()
    summaries = prepare(config)
    assert contents(tmp_path / "s") == whole
    assert [TokenStore.open(summary.path).metadata for summary in summaries] == [s.metadata for s in summaries]
