"""Several processes as one: starting, naming who is missing, and who writes."""

import os
import re

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from block_recurrent.errors import InputError, MissingProcessError

_TASK = re.compile(r"task[:/](\d+)")


def initialise(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the processes of a run; to be called before anything else touches a device.

    On a Cloud TPU pod all is found out when nothing is given. On one machine without any of the three there is nothing
    to join.

    Args:
        coordinator: HOST:PORT of process 0.
        num_processes: how many there are.
        process_id: which one this is, from 0.

    Raises:
        InputError: only some of the three are given, or they do not fit one another.
        MissingProcessError: not all processes came.
    """
    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        if _on_tpu_pod():
            jax.distributed.initialize()
        return
    if missing:
        raise InputError(
            f"{', '.join(missing)}: not given; --coordinator, --num_processes and --process_id go together"
        )
    assert num_processes is not None
    assert process_id is not None
    if not 0 <= process_id < num_processes:
        raise InputError(f"--process_id = {process_id}: must be from 0 to {num_processes - 1} (--num_processes)")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except RuntimeError as error:
        raise MissingProcessError(
            f"process {process_id} of {num_processes} could not join the others at {coordinator}: {_first_line(error)}"
        ) from None


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
        absent = sorted({int(number) for number in _TASK.findall(str(error))})
        who = f"process(es) {', '.join(map(str, absent))} of {jax.process_count()}" if absent else "some process"
        raise MissingProcessError(
            f"{name}: waited {timeout_seconds:g} s for {who}, which did not come ({_first_line(error)})"
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


def _on_tpu_pod() -> bool:
    """A pod's hosts are told one another's names; a single host's list has one entry."""
    return len([host for host in os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]) > 1


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
