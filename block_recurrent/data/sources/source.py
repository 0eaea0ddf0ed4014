"""Base class of text sources: files, records in the files, documents in the records."""

import abc
import collections
import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from block_recurrent.data.sources.text import listing_signature

Counts = collections.Counter[str]


@dataclasses.dataclass(frozen=True)
class TextDocument:
    """One document.

    Attributes:
        name: unique within its split.
        text: the whole text.
    """

    name: str
    text: str


@dataclasses.dataclass(frozen=True)
class Record:
    """A unit of work for a worker, with all that the source needs to read some documents.

    Attributes:
        name: name of the file or archive member, for messages.
        payload: picklable; for example a path, or bytes that have been read.
        size: bytes of input, the unit of progress.
    """

    name: str
    payload: Any
    size: int


class Source(abc.ABC):
    """A text source.

    Reading has three steps. `files` lists the input, in one process. `records` lists the records of a file, in one
    process or on a cluster, distributed by file. `documents` reads and repairs the documents of a record, in any number
    of workers. Each step has a fixed order, so the documents do not depend on the number of processes.

    Attributes:
        name: name in `PrepareConfig.source`.
        rules_version: version of the source's rules for reading text. It increases when the same input yields other
            documents, and is recorded in the store.
        published_words: number of words of each split as published by its authors; `prepare` warns if it differs.
    """

    name: str
    rules_version: int = 1
    published_words: Mapping[str, int] = types.MappingProxyType({})

    @property
    @abc.abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The source's splits."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that shapes the documents, as JSON: rules, versions, options. No paths: a copy has equal text."""
        return {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for the user about the input as a whole."""
        return ()

    @abc.abstractmethod
    def list_files(self, split: str) -> Sequence[Record]:
        """Finds the input of a split; see `files`."""

    @functools.cached_property
    def _listings(self) -> dict[str, Sequence[Record]]:
        return {}

    def files(self, split: str) -> Sequence[Record]:
        """Returns the input of a split, in order; cached."""
        if split not in self._listings:
            self._listings[split] = self.list_files(split)
        return self._listings[split]

    def left_out(self, split: str) -> Counts:
        """Returns the numbers of files that listing the input leaves out, by reason; a file counts for one split."""
        del split
        return Counts()

    def records(self, file: Record, split: str, counts: Counts) -> Iterator[Record]:
        """Yields the records of a file, by default the file itself. Counts omissions by reason."""
        del split, counts
        yield file

    @abc.abstractmethod
    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """Yields the documents of one record. Counts omissions and repairs by reason."""

    def walk(self, split: str, counts: Counts) -> Iterator[Record]:
        """Yields all records of a split, in order."""
        for file in self.files(split):
            yield from self.records(file, split, counts)

    def signature(self, split: str) -> str:
        """Returns a hex sha256 that changes with the input. Covers names and sizes, which are cheap to read."""
        return listing_signature((file.name, file.size) for file in self.files(split))

    def total(self, split: str) -> int:
        """Returns the bytes of a split's input."""
        return sum(file.size for file in self.files(split))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_listings"}  # not needed by workers
