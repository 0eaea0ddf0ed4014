"""Lists files of input folders, local or `gs://`."""

import concurrent.futures
import os
from collections.abc import Iterator, Sequence

from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.files import is_remote

_REMOTE_CONNECTIONS = 32


def list_paths(source: str, root: str) -> Iterator[str]:
    """Yields the paths of all files in a folder and its subfolders, in any order.

    Links to folders are yielded like files and not followed.

    Args:
        source: name of the text source, for messages.
        root: folder, local or `gs://`.

    Yields:
        Paths relative to the root, with "/" as separator.

    Raises:
        InputError: a folder cannot be read.
    """
    if is_remote(root):
        yield from _remote_paths(epath.Path(root))
        return

    def refuse(error: OSError) -> None:
        raise InputError(f"source {source}: cannot read folder {error.filename}: {error.strerror}")

    for folder, folders, names in os.walk(root, onerror=refuse):
        above = os.path.relpath(folder, root)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in [*names, *links]:
            yield (name if above == os.curdir else os.path.join(above, name)).replace(os.sep, "/")


def is_regular(root: str, path: str) -> bool:
    """Returns whether a path is a file or a link to a file. On object stores every path is."""
    return is_remote(root) or os.path.isfile(os.path.join(root, path))


def is_link(root: str, path: str) -> bool:
    """Returns whether a path is a link. Object stores have none."""
    return not is_remote(root) and os.path.islink(os.path.join(root, path))


def with_sizes(root: str, paths: Sequence[str]) -> list[tuple[str, int]]:
    """Returns (path, bytes) of files in a folder, in the given order."""
    if not is_remote(root):
        return [(path, os.stat(os.path.join(root, path)).st_size) for path in paths]
    with concurrent.futures.ThreadPoolExecutor(_REMOTE_CONNECTIONS) as pool:  # one request per file
        sizes = pool.map(lambda path: (epath.Path(root) / path).stat().length, paths)
        return list(zip(paths, sizes, strict=True))


def _remote_paths(root: epath.Path) -> Iterator[str]:
    """Yields paths relative to the root. `rglob` does not work on object stores, and some backends omit the scheme."""
    top = len(_without_scheme(root))
    for folder, _, names in root.walk():
        inside = _without_scheme(folder)[top:].strip("/")
        yield from (f"{inside}/{name}" if inside else name for name in names if name)


def _without_scheme(path: epath.PathLike) -> str:
    return os.fspath(path).rsplit("://", 1)[-1].rstrip("/")


def join(root: str, relative: str) -> epath.Path:
    """Returns the path of a file relative to a root; the root itself if the relative path is empty."""
    return epath.Path(root) / relative if relative else epath.Path(root)
