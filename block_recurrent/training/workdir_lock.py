"""A lock that keeps a workdir to one live run."""

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator

from etils import epath

from block_recurrent.errors import InputError, first_line
from block_recurrent.files import LockedError, is_remote, lock

_FILE = "lock"


def _silent(message: str) -> None:
    """Shows nothing."""


@contextlib.contextmanager
def hold_workdir(workdir: epath.Path, notify: Callable[[str], None] = _silent) -> Iterator[None]:
    """Locks a workdir until the context closes or the process ends.

    On `gs://` the lock is the object `WORKDIR/lock`, which a killed process leaves: the next run waits two minutes for
    a sign of life, and then takes it. Other remote file systems have no lock.

    Args:
        workdir: the run's folder; a local one must exist.
        notify: called with one sentence when this waits or when the workdir is not locked.

    Raises:
        InputError: a live run is using the workdir; the message names its process.
    """
    note = f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_lock(workdir, note, notify))
        except LockedError as error:
            remove = f" If it no longer runs, remove {workdir / _FILE}." if is_remote(workdir) else ""
            raise InputError(
                f"--workdir {workdir}: a live run is using it ({error}). Wait for it, end it, or choose another "
                f"--workdir.{remove}"
            ) from None
        except OSError as error:
            raise InputError(f"--workdir {workdir}: its lock cannot be written: {error.strerror or error}") from None
        yield


def _lock(workdir: epath.Path, note: str, notify: Callable[[str], None]) -> contextlib.AbstractContextManager[object]:
    if not is_remote(workdir):
        return lock(workdir / _FILE, note)
    if not os.fspath(workdir).startswith("gs://"):
        notify(f"{workdir}: not locked; only gs:// and local folders are: start no second run there")
        return contextlib.nullcontext()
    from block_recurrent.training.bucket_lock import CloudObject, hold_object

    try:
        item = CloudObject(os.fspath(workdir / _FILE))
    except Exception as error:  # no google-cloud-storage, or no credentials that it finds
        notify(
            f"{workdir}: not locked, so start no second run there; the lock needs the extra `gcs` and credentials "
            f"({first_line(error)})"
        )
        return contextlib.nullcontext()
    return hold_object(item, note, notify=notify)
