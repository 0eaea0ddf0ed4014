"""A folder of repositories: one document per repository, all its source files in path order."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from block_recurrent.data.sources import code
from block_recurrent.data.sources.folder import FolderSource
from block_recurrent.data.sources.source import Counts, Record, TextDocument
from block_recurrent.data.sources.splits import Splitter, own_split
from block_recurrent.data.sources.text import decode_text
from block_recurrent.errors import InputError

EMPTY = "repositories without source files (left out)"


class Github(FolderSource):
    """One document per repository: every source file after a comment with its path, in path order.

    Leaves out vendored, generated and binary files and files above 1 MB (see `code.py`). Does not follow links.

    Args:
        root: folder of repositories, or of `train/`, `validation/` and `test/` with repositories; local or `gs://`.
        splitter: divides repositories that are not in folders of splits.
        extensions: endings of the files to read, with their dots; None means those of common programming languages.
        depth: folder levels of a repository's name: 1 for `<repository>`, 2 for `<owner>/<repository>`.

    Raises:
        InputError: the folder has no source file.
    """

    name = "github"

    def __init__(self, root: str, splitter: Splitter, *, extensions: tuple[str, ...] | None = None, depth: int = 1):
        self._extensions = tuple(sorted(extensions or code.DEFAULT_ENDINGS))
        self._depth = depth
        if not epath.Path(root).is_dir():
            raise InputError(f"source github: its input {root} is not a folder of repositories")
        super().__init__(root, splitter)

    def wanted(self, path: str) -> bool:
        """See `FolderSource.wanted`."""
        return path.endswith(self._extensions) and not os.path.islink(f"{self.root}/{path}")

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`."""
        return {**super().settings, "extensions": list(self._extensions), "depth": self._depth}

    @property
    def _above(self) -> int:
        """Number of folders above those of a repository's name."""
        return 1 if self.has_own_splits else 0

    def list_files(self, split: str) -> Sequence[Record]:
        """See `Source.list_files`: one record per repository."""
        repositories: dict[str, list[tuple[str, int]]] = {}
        for path, size in self._all_files:
            if self.has_own_splits and own_split(path) != split:
                continue
            parts = path.split("/")
            name = "/".join(parts[self._above : self._above + self._depth])
            if len(parts) > self._above + self._depth and self.belongs(name, split):
                repositories.setdefault(name, []).append((path, size))
        return [
            Record(name, [path for path, _ in files], sum(size for _, size in files))
            for name, files in sorted(repositories.items())
        ]

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """See `Source.documents`."""
        parts = []
        for path in record.payload:
            inside = path.split("/", self._above + self._depth)[-1]
            data = self._read(path, inside, counts)
            if data is not None:
                text = decode_text(data, counts)
                parts += [code.path_comment(inside), text if text.endswith("\n") else text + "\n"]
        if parts:
            yield TextDocument(record.name, "".join(parts))
        else:
            counts[EMPTY] += 1

    def _read(self, path: str, inside: str, counts: Counts) -> bytes | None:
        """Returns a file's bytes, or None if the file is left out."""
        if code.is_vendored(inside):
            counts[code.VENDORED] += 1
            return None
        data = (epath.Path(self.root) / path).read_bytes()
        if len(data) > code.LARGEST_FILE:
            counts[code.TOO_LARGE] += 1
        elif code.is_binary(data):
            counts[code.BINARY] += 1
        elif code.is_generated(inside, data):
            counts[code.GENERATED] += 1
        else:
            return data
        return None
