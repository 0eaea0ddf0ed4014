"""What a text source is: files, records in the files, documents in the records."""

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
        text: all of it.
    """

    name: str
    text: str


@dataclasses.dataclass(frozen=True)
class Record:
    """A piece of work: enough to make some documents of, cheap to find and to send to a worker.

    Attributes:
        name: of the file or member, for messages.
        payload: picklable; what the source needs to go on: a path, or bytes read already.
        size: bytes of input, the unit of progress.
    """

    name: str
    payload: Any
    size: int


class Source(abc.ABC):
    """A text source in three steps, each in a fixed order, so that any division of labour gives the same documents.

    `files` lists the input (in one process), `records` walks through a file (in one process, or spread over a cluster
    by file), and `documents` reads, repairs and parts a record (in any number of workers).

    Attributes:
        name: as in `PrepareConfig.source`.
        published_words: words of each split as its authors published them; a preparation that differs is warned about.
    """

    name: str
    published_words: Mapping[str, int] = types.MappingProxyType({})

    @property
    @abc.abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits it has."""

    @property
    def settings(self) -> dict[str, Any]:
        """What shaped the documents, as JSON: rules, versions, options. No paths: a copy elsewhere is the same text."""
        return {}

    @abc.abstractmethod
    def list_files(self, split: str) -> Sequence[Record]:
        """Finds the input of a split; see `files`."""

    @functools.cached_property
    def _listings(self) -> dict[str, Sequence[Record]]:
        return {}

    def files(self, split: str) -> Sequence[Record]:
        """The input of a split, in order; found once and remembered."""
        if split not in self._listings:
            self._listings[split] = self.list_files(split)
        return self._listings[split]

    def records(self, file: Record, split: str, counts: Counts) -> Iterator[Record]:
        """The pieces of work in a file: by default the file itself. What is left out is counted by reason."""
        del split, counts
        yield file

    @abc.abstractmethod
    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """The documents of one record; what is left out or repaired is counted by reason."""

    def walk(self, split: str, counts: Counts) -> Iterator[Record]:
        """All records of a split, in order."""
        for file in self.files(split):
            yield from self.records(file, split, counts)

    def signature(self, split: str) -> str:
        """Hex sha256 that changes when the input does; by names and sizes, which are cheap to find."""
        return listing_signature((file.name, file.size) for file in self.files(split))

    def total(self, split: str) -> int:
        """Bytes of input."""
        return sum(file.size for file in self.files(split))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_listings"}  # workers need none
