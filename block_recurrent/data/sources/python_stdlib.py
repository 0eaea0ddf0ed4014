"""The source files of the Python standard library: real text on every machine with Python."""

import hashlib
import platform
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from block_recurrent.data.sources.source import Counts, Record, Source, TextDocument
from block_recurrent.data.sources.text import decode_text
from block_recurrent.errors import InputError

_MINIMUM_BYTES = 8 * 1024
# Tests are repetitive and often not text; the other folders are not part of the library or differ between machines.
_LEFT_OUT_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_LEFT_OUT_PREFIXES = ("config-", "_sysconfigdata", "sitecustomize")
_TENTHS = {0: "validation", 1: "test"}


class PythonStdlib(Source):
    """One document per module of at least 8 KB; a hash of its path decides its split (about 80/10/10 %).

    Args:
        root: the library's folder; by default the running interpreter's.

    Raises:
        InputError: there is no such folder.
    """

    name = "python_stdlib"

    def __init__(self, root: str | None = None):
        self._root = Path(root or sysconfig.get_path("stdlib"))
        if not self._root.is_dir():
            raise InputError(f"source python_stdlib: {self._root} is not a folder")
        self._paths = sorted(path for path in self._walk() if self._size(path) >= _MINIMUM_BYTES)

    def _walk(self) -> Iterator[str]:
        for path in self._root.rglob("*.py"):
            relative = path.relative_to(self._root)
            left_out = _LEFT_OUT_FOLDERS.intersection(relative.parts[:-1])
            if not left_out and not any(part.startswith(_LEFT_OUT_PREFIXES) for part in relative.parts):
                yield relative.as_posix()

    def _size(self, path: str) -> int:
        return (self._root / path).stat().st_size

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source.splits`."""
        return ("train", "validation", "test")

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`."""
        return {"python_version": platform.python_version(), "minimum_bytes": _MINIMUM_BYTES}

    def signature(self, split: str) -> str:
        """See `Source.signature`: covers the contents, because they are small."""
        digest = hashlib.sha256()
        for file in self.files(split):
            content = hashlib.sha256((self._root / file.payload).read_bytes()).hexdigest()
            digest.update(f"{file.name}\0{content}\n".encode())
        return digest.hexdigest()

    def list_files(self, split: str) -> Sequence[Record]:
        """See `Source.list_files`: one record per module, sorted by path."""
        return [Record(path, path, self._size(path)) for path in self._paths if split_of(path) == split]

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """See `Source.documents`."""
        yield TextDocument(record.name, decode_text((self._root / record.payload).read_bytes(), counts))


def split_of(path: str) -> str:
    """Returns a module's split. It depends on the path alone, so Python versions agree on common modules."""
    tenth = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") % 10
    return _TENTHS.get(tenth, "train")
