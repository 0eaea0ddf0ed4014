"""Base class of sources that read a folder of files: listing, and the corpus's own splits or hashed ones."""

import abc
import functools
from collections.abc import Sequence
from typing import Any

from block_recurrent.data.sources import splits
from block_recurrent.data.sources.files import list_files
from block_recurrent.data.sources.source import Record, Source


class FolderSource(Source):
    """A source that reads the files of a folder. Subclasses select files and read documents from them.

    If every file's path names its split (`train/...`, `valid.jsonl`), the corpus has its own splits. Otherwise a hash
    of each document's name decides its split.

    Args:
        root: folder, or one file; local or `gs://`.
        splitter: divides the documents of a corpus without its own splits.
    """

    def __init__(self, root: str, splitter: splits.Splitter):
        self.root = root.rstrip("/") or root
        self.splitter = splitter
        self.has_own_splits = splits.has_own_splits(path or self.root.split("/")[-1] for path, _ in self._all_files)

    @abc.abstractmethod
    def wanted(self, path: str) -> bool:
        """Returns whether the source reads the file at a relative path."""
        ...

    @functools.cached_property
    def _all_files(self) -> list[tuple[str, int]]:
        return list_files(self.name, self.root, self.wanted)

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source.splits`."""
        if self.has_own_splits:
            return splits.splits_found([self.display(path) for path, _ in self._all_files])
        return self.splitter.splits

    def display(self, path: str) -> str:
        """Returns the name of a file; the relative path is empty if the root is a file."""
        return path or self.root.split("/")[-1]

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`."""
        if self.has_own_splits:
            return {"splits": "its own"}
        hashed = {"validation": self.splitter.validation_percent, "test": self.splitter.test_percent}
        return {"splits": "by a hash of the name", "percent": hashed}

    def list_files(self, split: str) -> Sequence[Record]:
        """See `Source.list_files`: all files that may have documents of the split."""
        files = [(self.display(path), path, size) for path, size in self._all_files]
        return [Record(*file) for file in files if not self.has_own_splits or splits.own_split(file[0]) == split]

    def belongs(self, name: str, split: str) -> bool:
        """Returns whether a document of a listed file belongs to the split."""
        return self.has_own_splits or self.splitter.split_of(name) == split

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_all_files"}
