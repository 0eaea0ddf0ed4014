"""Lists files of input folders, local or `gs://`."""

import concurrent.futures
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.files import is_remote

_REMOTE_CONNECTIONS = 32


def list_files(source: str, root: str, wanted: Callable[[str], bool]) -> list[tuple[str, int]]:
    """Lists the files in a folder and its subfolders, sorted by path. Links to folders are not followed.

    Args:
        source: name of the text source, for messages.
        root: folder, or a single file.
        wanted: returns whether to list a file, given its path relative to the root, with "/" as separator.

    Returns:
        (relative path, bytes) of each file.

    Raises:
        InputError: the root does not exist or has no wanted file.
    """
    path = epath.Path(root)
    if not path.exists():
        raise InputError(f"source {source}: its input {root} does not exist")
    if not path.is_dir():
        return [("", path.stat().length)]
    found = sorted(_remote_files(path, wanted) if is_remote(root) else _local_files(Path(root), wanted))
    if not found:
        raise InputError(f"source {source}: its input {root} has no file that this source reads")
    return found


def _local_files(root: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, int]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            if wanted(relative) and path.is_file():
                yield relative, path.stat().st_size


def _remote_files(root: epath.Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, int]]:
    paths = [path for path in _remote_paths(root) if wanted(path)]
    with concurrent.futures.ThreadPoolExecutor(_REMOTE_CONNECTIONS) as pool:  # one request per file
        yield from zip(paths, pool.map(lambda path: (root / path).stat().length, paths), strict=True)


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
