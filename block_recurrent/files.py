"""Paths, atomic writes and locks, for local and remote files."""

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from etils import epath

from block_recurrent.errors import InputError

PARTIAL = ".partial"


def is_remote(path: os.PathLike[str] | str) -> bool:
    """Returns whether a path is a URL, such as `gs://bucket/folder`."""
    return "://" in os.fspath(path)


def expand(path: os.PathLike[str] | str) -> str:
    """Returns a path with the home folder for a leading `~` or `~user`.

    As in a shell, the `~` of an unknown user stays, and `./~` is the name of a file. A URL is not changed.
    """
    text = os.fspath(path)
    return text if is_remote(text) else os.path.expanduser(text)


def local_path(text: str) -> Path:
    """Returns a local path of a command line, with `~` expanded."""
    return Path(expand(text))


def resolve(path: os.PathLike[str] | str) -> epath.Path:
    """Returns an absolute path with `~` expanded as in `expand`; a URL is not changed."""
    text = expand(path)
    return epath.Path(text if is_remote(text) else Path(text).absolute())


def check_utf8(path: os.PathLike[str] | str) -> None:
    """Checks that a path is UTF-8, which TensorStore and Orbax need.

    Raises:
        InputError: it is not.
    """
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:  # Python decodes other bytes to lone surrogates
        raise InputError(f"{path}: the path is not UTF-8; rename the folder, or set PYTHONUTF8=1") from None


def partial_path(path: os.PathLike[str] | str, writer: str = "") -> epath.Path:
    """Returns the neighbour to which a file is written before it is renamed.

    Args:
        path: the file.
        writer: distinguishes processes that may write the same file at the same time.
    """
    target = epath.Path(path)
    return target.parent / f"{target.name}{'.' if writer else ''}{writer}{PARTIAL}"


def write_whole(path: os.PathLike[str] | str, content: bytes | str, writer: str = "") -> None:
    """Writes a file atomically: readers see the old content or the new content, never a part.

    The content is written to a temporary file in the same folder, flushed to disk if it is local, and renamed. After an
    error the temporary file is deleted and the file is unchanged.

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


@contextlib.contextmanager
def whole_folder(folder: epath.Path, last: Collection[str]) -> Iterator[epath.Path]:
    """Yields a folder for new files, which are moved to `folder` when the context ends without an exception.

    After an exception nothing is left of them. A remote folder is written directly: object stores cannot rename.

    Args:
        folder: created if it does not exist; its own files stay.
        last: names of the files to move last, because they mark the others as complete.
    """
    if is_remote(folder):
        yield folder
        return
    partial = folder.parent / f".{folder.name}.{os.getpid()}{PARTIAL}"
    created = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        partial.mkdir(parents=True)
        yield partial
        folder.mkdir(exist_ok=True)
        for path in sorted(partial.iterdir(), key=lambda path: (path.name in last, path.name)):
            path.rename(folder / path.name)
        partial.rmdir()
    except BaseException:
        partial.rmtree(missing_ok=True)
        for parent in created:
            with contextlib.suppress(OSError):  # not empty
                parent.rmdir()
        raise


class LockedError(Exception):
    """Another process holds the lock; the message is the note of that process."""


@contextlib.contextmanager
def lock(path: os.PathLike[str] | str, note: str) -> Iterator[IO[str]]:
    """Holds an exclusive lock on a local file; the operating system releases it when the process ends.

    Args:
        path: the lock file; created if it does not exist.
        note: written into the file; the message of `LockedError` in other processes.

    Yields:
        The open lock file.

    Raises:
        LockedError: another process holds the lock.
    """
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LockedError(file.read().strip() or "unknown process") from None
        file.truncate(0)
        file.write(note)
        file.flush()
        yield file
