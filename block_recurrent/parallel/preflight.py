"""Checks that the processes of a run fit together, before anything expensive starts."""

import importlib.metadata
import json
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from block_recurrent.errors import InputError, first_line
from block_recurrent.parallel.processes import all_true

_PACKAGES = ("block-recurrent", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint")


def check(workdir: epath.Path) -> None:
    """Compares this process with the others and tries to write into the workdir.

    Args:
        workdir: the run's folder; created if it does not exist.

    Raises:
        InputError: versions or numbers of devices differ between processes, or a process cannot write there.
    """
    if jax.process_count() == 1:
        return
    check_processes()
    reason = _reason_not_to_write(workdir)
    if not all_true(reason is None):
        here = (
            f"process {jax.process_index()}: {reason}"
            if reason
            else "another process cannot write there; see its output"
        )
        raise InputError(f"--workdir {workdir}: every process must be able to write there: {here}")


def check_processes(arguments: Sequence[str] = ()) -> None:
    """Compares versions, numbers of devices and command lines of the processes.

    Args:
        arguments: the command line without the index of the process.

    Raises:
        InputError: they differ.
    """
    if jax.process_count() == 1:  # the devices need not start yet
        return
    check_equal("versions", {name: _version(name) for name in _PACKAGES})
    check_equal("local devices", jax.local_device_count())
    check_equal("arguments", list(arguments))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def check_equal(name: str, value: Any) -> None:
    """Checks that all processes have the same value.

    Args:
        name: plural noun, for the message.
        value: JSON-serialisable.

    Raises:
        InputError: a process has another value than process 0.
    """
    if jax.process_count() == 1:
        return
    text = json.dumps(value)
    sums = np.ravel(multihost_utils.process_allgather(np.int64(zlib.crc32(text.encode()))))
    different = [index for index, other in enumerate(sums) if other != sums[0]]
    if different:
        listed = ", ".join(map(str, different))
        raise InputError(
            f"{name} differ between processes: process(es) {listed} from process 0; process {jax.process_index()} has "
            f"{value}"
        )


def _reason_not_to_write(workdir: epath.Path) -> str | None:
    probe = workdir / f".probe_{jax.process_index()}"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except Exception as error:  # file systems and their libraries raise many classes
        return first_line(error)
    return None
