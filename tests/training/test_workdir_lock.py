import os
import subprocess
import sys

import pytest
from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.training.workdir_lock import hold_workdir

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


def test_a_remote_workdir_is_not_locked():
    workdir = epath.Path("gs://bucket/run")
    with hold_workdir(workdir), hold_workdir(workdir):
        pass
