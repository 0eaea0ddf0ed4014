"""Start-up and barriers of several processes. Whole runs with several processes are in test_faults."""

import os
import socket
import subprocess
import sys

import pytest

from block_recurrent.errors import InputError
from block_recurrent.parallel import processes

JOIN = """
import sys, time
from block_recurrent.parallel import processes
from block_recurrent.errors import MissingProcessError
coordinator, process, timeout, script = sys.argv[1:]
try:
    processes.initialise(coordinator, 2, int(process), timeout_seconds=int(timeout))
    exec(script)
except MissingProcessError as error:
    print(error, flush=True)
    __import__("os")._exit(4)  # jax's own shutdown would wait for the other
"""


def start(coordinator: str, process: int, script: str, *, timeout: int = 60) -> subprocess.Popen[str]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", JOIN, coordinator, str(process), str(timeout), script]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


@pytest.fixture
def coordinator():
    with socket.socket() as free:
        free.bind(("", 0))
        return f"localhost:{free.getsockname()[1]}"


@pytest.mark.slow
def test_a_barrier_names_the_missing_process_and_the_event(coordinator):
    waits = start(coordinator, 0, "processes.barrier('the data to be there', timeout_seconds=2)")
    stays_away = start(coordinator, 1, "processes.jax.devices(); sys.stdin.read()")
    output, errors = waits.communicate(timeout=120)
    stays_away.kill()
    stays_away.communicate()
    assert waits.returncode == 4, errors
    assert "the data to be there: waited 2 s for process(es) 1 of 2, which did not come" in output


def test_a_process_that_never_starts_is_reported(coordinator):
    alone = start(coordinator, 0, "", timeout=3)
    output, errors = alone.communicate(timeout=120)
    assert alone.returncode == 4, errors
    assert output == ""
    assert errors.startswith(f"error: process 0 of 2 at {coordinator} could not join the others within 3 s")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("host:1", None, 0), "--num-processes: not given"),
        (("host:1", 2, None), "--process-id: not given"),
        (("host:1", 2, 2), "--process-id = 2: must be from 0 to 1"),
    ],
)
def test_flags_that_do_not_fit_one_another_are_refused(given, named):
    with pytest.raises(InputError, match=named):
        processes.initialise(*given)


@pytest.mark.parametrize("on_tpu", [False, True])
def test_processes_on_cloud_tpu_join_without_flags(monkeypatch, on_tpu):
    calls = []
    monkeypatch.setattr(processes, "_on_cloud_tpu", lambda: on_tpu)
    monkeypatch.setattr(processes.jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    processes.initialise(None, None, None)
    assert calls == ([{"initialization_timeout": 360}] if on_tpu else [])
