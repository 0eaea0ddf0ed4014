"""Synthetic documents that need no download: facts, noise, and the facts again, a test of long-range recall."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from block_recurrent.data.sources.source import Counts, Record, Source, TextDocument
from block_recurrent.data.sources.splits import SPLITS

_SYLLABLES = ("ba", "do", "fe", "gi", "ku", "la", "mo", "ne", "pi", "ru", "sa", "to", "vi", "zu")


class SyntheticRecall(Source):
    """Documents that assign numbers to names, continue with noise, and repeat each name with its number.

    Args:
        documents: documents of the training split; validation and test have a tenth each, at least one.
        characters: approximate length of each document.
        facts: number of names in each document.
    """

    name = "synthetic_recall"

    def __init__(self, documents: int = 200, characters: int = 20_000, facts: int = 16):
        self._documents = documents
        self._characters = characters
        self._facts = facts

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source.splits`."""
        return SPLITS

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`."""
        return {"documents": self._documents, "characters": self._characters, "facts": self._facts}

    def list_files(self, split: str) -> Sequence[Record]:
        """See `Source.list_files`."""
        count = self._documents if split == "train" else max(1, self._documents // 10)
        return [Record(f"{split} {index}", (SPLITS.index(split), index), self._characters) for index in range(count)]

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """See `Source.documents`."""
        del counts
        random = _Random(*record.payload)
        names = list(dict.fromkeys(random.word(3) for _ in range(2 * self._facts)))[: self._facts]
        numbers = {name: 1000 + random.below(9000) for name in names}
        lines = [f"remember {name} {number}\n" for name, number in numbers.items()]
        length = 2 * sum(map(len, lines))
        while length < self._characters:
            lines.append(" ".join(random.word(1 + random.below(3)) for _ in range(12)) + "\n")
            length += len(lines[-1])
        order = sorted(names, key=lambda name: random.below(1 << 62))
        lines += [f"recall {name} {numbers[name]}\n" for name in order]
        yield TextDocument(record.name, "".join(lines))


class _Random:
    """Random numbers from raw bits, which are the same in all versions of numpy."""

    def __init__(self, split: int, index: int):
        self._bits = np.random.Philox(key=split, counter=index << 64)

    def below(self, limit: int) -> int:
        return int(self._bits.random_raw()) % limit

    def word(self, syllables: int) -> str:
        return "".join(_SYLLABLES[self.below(len(_SYLLABLES))] for _ in range(syllables))
