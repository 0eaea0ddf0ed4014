"""What sources that read a folder of files have in common: listing, own splits or hashed ones."""

import abc
import functools
from collections.abc import Sequence
from typing import Any

from block_recurrent.data.sources import splits
from block_recurrent.data.sources.files import list_files
from block_recurrent.data.sources.source import Record, Source


class FolderSource(Source):
    """Files below a folder. Subclasses say which files they read, and make documents of them.

    If the path of every file names its split (`train/...`, `valid.jsonl`), those are the splits; otherwise documents
    are divided by a hash of their names.

    Args:
        root: the folder, or one file; local or `gs://`.
        splitter: divides the documents of a corpus without splits of its own.
    """

    def __init__(self, root: str, splitter: splits.Splitter):
        self.root = root.rstrip("/") or root
        self.splitter = splitter
        self.has_own_splits = splits.has_own_splits(path or self.root.split("/")[-1] for path, _ in self._all_files)

    @abc.abstractmethod
    def wanted(self, path: str) -> bool:
        """Whether the source reads the file at a relative path."""
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
        """The name of a file; a root that is one file has an empty relative path."""
        return path or self.root.split("/")[-1]

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`."""
        if self.has_own_splits:
            return {"splits": "its own"}
        hashed = {"validation": self.splitter.validation_percent, "test": self.splitter.test_percent}
        return {"splits": "by a hash of the name", "percent": hashed}

    def list_files(self, split: str) -> Sequence[Record]:
        """See `Source.list_files`: those that the split may need."""
        files = [(self.display(path), path, size) for path, size in self._all_files]
        return [Record(*file) for file in files if not self.has_own_splits or splits.own_split(file[0]) == split]

    def belongs(self, name: str, split: str) -> bool:
        """Whether a document belongs to the split for which a file is being walked through."""
        return self.has_own_splits or self.splitter.split_of(name) == split

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_all_files"}
