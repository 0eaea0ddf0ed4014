"""One live run per workdir."""

import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterator

from etils import epath

from block_recurrent.errors import InputError

_FILE = "lock"


@contextlib.contextmanager
def hold_workdir(workdir: epath.Path) -> Iterator[None]:
    """Keeps other runs out of a local workdir for as long as this process lives, however it ends.

    The operating system drops the lock with the process. Remote file systems have no such lock: there the launcher has
    to see to it that a run is started once.

    Args:
        workdir: the run's folder, which is there.

    Raises:
        InputError: a live run is using it; names its process.
    """
    if "://" in str(workdir):
        yield
        return
    with open(workdir / _FILE, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown process"
            raise InputError(
                f"--workdir {workdir}: a live run is using it ({holder}). Wait for it, end it, or choose another "
                "--workdir"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield
