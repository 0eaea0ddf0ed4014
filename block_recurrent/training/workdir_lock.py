"""A lock that keeps a workdir to one live run."""

import contextlib
import os
import platform
import time
from collections.abc import Iterator

from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.files import LockedError, is_remote, lock

_FILE = "lock"


@contextlib.contextmanager
def hold_workdir(workdir: epath.Path) -> Iterator[None]:
    """Locks a local workdir until the context closes or the process ends.

    Remote file systems have no such lock: there the launcher must not start a run twice.

    Args:
        workdir: the run's folder; it must exist.

    Raises:
        InputError: a live run is using the workdir; the message names its process.
    """
    if is_remote(workdir):
        yield
        return
    note = f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock(workdir / _FILE, note))
        except LockedError as error:
            raise InputError(
                f"--workdir {workdir}: a live run is using it ({error}). Wait for it, end it, or choose another "
                "--workdir"
            ) from None
        yield
