import os
import subprocess
import sys

import pytest
from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.training import bucket_lock
from block_recurrent.training.workdir_lock import hold_workdir
from tests.support.gcs_server import serving

HOLD = """
import sys
from etils import epath
from block_recurrent.training.workdir_lock import hold_workdir
with hold_workdir(epath.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_held_workdir_is_refused_with_the_name_of_the_process(tmp_path):
    workdir = epath.Path(tmp_path)
    refused = rf"{tmp_path}: a live run is using it \(process {os.getpid()} on .* since "
    with hold_workdir(workdir), pytest.raises(InputError, match=refused), hold_workdir(workdir):
        pass
    with hold_workdir(workdir):  # released
        pass


def test_a_killed_process_releases_its_workdir(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(InputError, match=rf"\(process {process.pid} on"),
            hold_workdir(epath.Path(tmp_path)),
        ):
            pass
        process.kill()
        process.wait()
    with hold_workdir(epath.Path(tmp_path)):
        pass


def test_a_workdir_in_a_bucket_is_locked_or_says_why_not(monkeypatch, tmp_path):
    """Through the client of Google Cloud Storage and a fake server; without the client, one sentence says so."""
    pytest.importorskip("google.cloud.storage", reason="the extra `gcs` is not installed")
    workdir = epath.Path("gs://bucket/run")
    with serving() as (address, objects):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        refused = rf"gs://bucket/run: a live run is using it \(process {os.getpid()} on .*remove gs://bucket/run/lock"
        monkeypatch.setattr(bucket_lock, "_SECONDS_BETWEEN_WRITES", 0.05)
        monkeypatch.setattr(bucket_lock, "_SECONDS_BETWEEN_READS", 0.2)
        with hold_workdir(workdir), pytest.raises(InputError, match=refused), hold_workdir(workdir):
            pass
        assert objects == {}
    said = []

    def not_installed(url: str) -> None:
        raise ImportError("No module named 'google'")

    monkeypatch.setattr(bucket_lock, "CloudObject", not_installed)
    with hold_workdir(workdir, said.append), hold_workdir(workdir):
        pass
    assert "not locked" in said[0]
    assert "extra `gcs`" in said[0]
