"""Files and folders, local or remote: paths, whole writes and locks."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from etils import epath

PARTIAL = ".partial"


def is_remote(path: os.PathLike[str] | str) -> bool:
    """Whether a path is a URL, such as `gs://bucket/folder`."""
    return "://" in os.fspath(path)


def resolve(path: os.PathLike[str] | str) -> epath.Path:
    """An absolute path with `~` expanded; a URL stays as it is."""
    text = os.fspath(path)
    return epath.Path(text if is_remote(text) else Path(text).expanduser().absolute())


def partial_path(path: os.PathLike[str] | str, writer: str = "") -> epath.Path:
    """Returns the neighbour to which a file is written before it is renamed.

    Args:
        path: the file.
        writer: distinguishes processes that may write the same file at the same time.
    """
    target = epath.Path(path)
    return target.parent / f"{target.name}{'.' if writer else ''}{writer}{PARTIAL}"


def write_whole(path: os.PathLike[str] | str, content: bytes | str, writer: str = "") -> None:
    """Writes a file so that it appears whole or not at all.

    The content is written to a neighbouring file, flushed to disk where the file is local, and renamed. After an
    error the neighbour is gone and the file is as it was.

    Args:
        path: local or remote; its folder must exist.
        content: bytes, or text written as UTF-8.
        writer: as in `partial_path`.

    Raises:
        OSError: the file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    target = epath.Path(path)
    partial = partial_path(target, writer)
    try:
        if is_remote(target):
            partial.write_bytes(data)
        else:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        partial.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


class LockedError(Exception):
    """Another process holds the lock; the message is what it wrote into the file."""


@contextlib.contextmanager
def lock(path: os.PathLike[str] | str, note: str) -> Iterator[IO[str]]:
    """Holds an exclusive lock on a local file; the operating system releases it when the process ends.

    Args:
        path: the lock file; created if it does not exist.
        note: written into the file, for whoever finds it locked.

    Yields:
        The open lock file.

    Raises:
        LockedError: another process holds the lock.
    """
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LockedError(file.read().strip() or "unknown process") from None
        file.truncate(0)
        file.write(note)
        file.flush()
        yield file
