"""Several processes of one run: start-up, barriers that name missing processes, and agreement."""

import contextlib
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from block_recurrent.errors import EXIT_CODES, InputError, MissingProcessError, first_line

_ABSENT = re.compile(r"timed out task names:\n((?:\S+\n)+)")  # one a line; the number is at its end


def initialise(
    coordinator: str | None, num_processes: int | None, process_id: int | None, *, timeout_seconds: int = 300
) -> None:
    """Joins the processes of a run; must be called before anything else uses a device.

    Without arguments, the processes of a Cloud TPU slice find one another; elsewhere the process runs alone.

    Args:
        coordinator: HOST:PORT of process 0.
        num_processes: number of processes.
        process_id: index of this process, from 0.
        timeout_seconds: longest time to wait for the others.

    Raises:
        InputError: only some of the three arguments are set, or `process_id` is out of range.
        MissingProcessError: the others cannot be joined. When the time is up the process exits with this error's exit
            code.
    """
    given = {"--coordinator": coordinator, "--num-processes": num_processes, "--process-id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        if _on_cloud_tpu():
            _join("this host of the TPU slice", timeout_seconds=timeout_seconds)
        return
    if missing:
        raise InputError(
            f"{', '.join(missing)}: not given; --coordinator, --num-processes and --process-id must be given together"
        )
    assert num_processes is not None
    assert process_id is not None
    if not 0 <= process_id < num_processes:
        raise InputError(f"--process-id = {process_id}: must be from 0 to {num_processes - 1} (--num-processes)")
    _join(
        f"process {process_id} of {num_processes} at {coordinator}",
        timeout_seconds=timeout_seconds,
        coordinator_address=coordinator,
        num_processes=num_processes,
        process_id=process_id,
    )


def is_primary() -> bool:
    """Returns whether this process writes logs and prints."""
    return jax.process_index() == 0


def barrier(name: str, *, timeout_seconds: float = 300) -> None:
    """Waits until every process has called this.

    Args:
        name: the event to wait for, for the error message; unique within the run.
        timeout_seconds: longest time to wait.

    Raises:
        MissingProcessError: a process did not come in time; the message names it and the event.
    """
    wait = multihost.get_barrier_sync_fn()
    try:
        wait(key=name, timeout_ms=round(timeout_seconds * 1000))
    except Exception as error:  # jaxlib's own error class
        listed = _ABSENT.search(str(error))
        absent = sorted(int(number) for number in re.findall(r"(\d+)$", listed[1], re.MULTILINE)) if listed else []
        who = f"process(es) {', '.join(map(str, absent))} of {jax.process_count()}" if absent else "some process"
        raise MissingProcessError(
            f"{name}: waited {timeout_seconds:g} s for {who}, which did not come ({first_line(error)})"
        ) from None


def agree(value: int) -> int:
    """Returns the primary process's value on all processes."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def from_primary(array: np.ndarray) -> np.ndarray:
    """Returns the primary process's array on all processes; the others pass one of the same shape."""
    if jax.process_count() == 1:
        return array
    return np.asarray(multihost_utils.broadcast_one_to_all(array))


def all_true(value: bool) -> bool:
    """Returns whether the value is true on every process."""
    if jax.process_count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.asarray(value))))


def total_of_processes(value: int) -> int:
    """Returns the sum of the values of all processes."""
    if jax.process_count() == 1:
        return value
    words = np.asarray([value], np.int64).view(np.uint32)  # jax has no 64-bit integers by default
    return int(np.sum(np.ascontiguousarray(multihost_utils.process_allgather(words)).view(np.int64)))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Ends all processes with an error if the block raises one in any of them.

    The block must not communicate with other processes.

    Raises:
        InputError: the block raised an error in another process. An error of this process is raised unchanged.
    """
    if jax.process_count() == 1:
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failed = np.ravel(multihost_utils.process_allgather(np.asarray(failure is not None)))
    if failure is not None:
        raise failure
    if failed.any():
        numbers = ", ".join(map(str, np.flatnonzero(failed)))
        raise InputError(f"process(es) {numbers} of {len(failed)} reported an error; see their output")


def _join(name: str, *, timeout_seconds: int, **arguments: Any) -> None:
    """Joins the processes, or exits before jax's own timeout, which aborts with a stack trace without this message."""

    def give_up() -> None:
        print(
            f"error: {name} could not join the others within {timeout_seconds} s; start every process with the same "
            "--coordinator and --num-processes, and check that all of them are running",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_CODES[MissingProcessError])

    timer = threading.Timer(timeout_seconds, give_up)
    timer.start()
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=timeout_seconds + 60)
    except RuntimeError as error:
        raise MissingProcessError(f"{name} could not join the others: {first_line(error)}") from None
    finally:
        timer.cancel()


def _on_cloud_tpu() -> bool:
    """Returns whether the host has TPU chips and libtpu, and JAX_PLATFORMS does not exclude TPU."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    platforms = (os.environ.get("JAX_PLATFORMS") or "tpu").split(",")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None and "tpu" in platforms
