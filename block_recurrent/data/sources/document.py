"""What every text source yields, and what it has to offer."""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

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
    """A piece of work for one worker: enough to make some documents of, cheap to find and to send.

    Attributes:
        name: of the file or member, for messages.
        payload: picklable; what the source's `documents` needs: a path, or bytes read already.
        size: bytes of input, the unit of progress.
    """

    name: str
    payload: Any
    size: int


class Source(Protocol):
    """A text source. `records` runs in one process and in a fixed order, `documents` in any number of workers."""

    @property
    def name(self) -> str:
        """As in `PrepareConfig.source`."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits it has."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """What shaped the documents, as JSON: rules, versions, options. No paths: a copy elsewhere is the same text."""
        ...

    def signature(self, split: str) -> str:
        """Hex sha256 that changes when the input does; cheap, so by names and sizes unless the source says more."""
        ...

    def total(self, split: str) -> int:
        """Bytes of input: the sum of the records' sizes, or an estimate of it."""
        ...

    def records(self, split: str, counts: Counts) -> Iterator[Record]:
        """The pieces of work, in the order of the documents; what was left out on the way is counted by reason."""
        ...

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """The documents of one record; what was left out or repaired is counted by reason."""
        ...
