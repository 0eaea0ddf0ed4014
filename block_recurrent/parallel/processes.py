"""Several processes as one: starting, naming who is missing, and who writes."""

import importlib.util
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from block_recurrent.errors import EXIT_CODES, InputError, MissingProcessError, first_line

_ABSENT = re.compile(r"timed out task names:\n((?:\S+\n)+)")  # one a line, its number at the end


def initialise(
    coordinator: str | None, num_processes: int | None, process_id: int | None, *, timeout_seconds: int = 300
) -> None:
    """Joins the processes of a run; to be called before anything else touches a device.

    On Cloud TPU all is found out when nothing is given. Elsewhere there is nothing to join without the three.

    Args:
        coordinator: HOST:PORT of process 0.
        num_processes: how many there are.
        process_id: which one this is, from 0.
        timeout_seconds: how long to wait for the others at most.

    Raises:
        InputError: only some of the three are given, or they do not fit one another.
        MissingProcessError: the others cannot be joined. Where they do not come in time the process ends, with this
            error's exit code.
    """
    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        if _on_cloud_tpu():
            _join("this host of the TPU slice", timeout_seconds=timeout_seconds)
        return
    if missing:
        raise InputError(
            f"{', '.join(missing)}: not given; --coordinator, --num_processes and --process_id go together"
        )
    assert num_processes is not None
    assert process_id is not None
    if not 0 <= process_id < num_processes:
        raise InputError(f"--process_id = {process_id}: must be from 0 to {num_processes - 1} (--num_processes)")
    _join(
        f"process {process_id} of {num_processes} at {coordinator}",
        timeout_seconds=timeout_seconds,
        coordinator_address=coordinator,
        num_processes=num_processes,
        process_id=process_id,
    )


def is_primary() -> bool:
    """Whether this process is the one that writes logs and prints."""
    return jax.process_index() == 0


def barrier(name: str, *, timeout_seconds: float = 300) -> None:
    """Waits until every process is here.

    Args:
        name: what is waited for, unique within the run.
        timeout_seconds: how long at most.

    Raises:
        MissingProcessError: somebody did not come; says who and what was waited for.
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
    """The primary process's value, on all."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def all_true(value: bool) -> bool:
    """Whether the value is true on every process."""
    if jax.process_count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.asarray(value))))


def _join(what: str, *, timeout_seconds: int, **arguments: Any) -> None:
    """Joins, or ends the process: when its own time is up jax aborts with a stack trace that says nothing of this."""

    def give_up() -> None:
        print(
            f"error: {what} could not join the others within {timeout_seconds} s; start every process with the same "
            "--coordinator and --num_processes, and look why one is not there",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_CODES[MissingProcessError])

    timer = threading.Timer(timeout_seconds, give_up)
    timer.start()
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=timeout_seconds + 60)
    except RuntimeError as error:
        raise MissingProcessError(f"{what} could not join the others: {first_line(error)}") from None
    finally:
        timer.cancel()


def _on_cloud_tpu() -> bool:
    """Chips under /dev and the library that drives them, unless another platform is asked for."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    asked = os.environ.get("JAX_PLATFORMS") or "tpu"
    return bool(chips) and importlib.util.find_spec("libtpu") is not None and "tpu" in asked.split(",")
