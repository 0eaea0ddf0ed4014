"""Assigns documents to splits: the corpus's own, or by a hash of the document's name."""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Sequence

SPLITS = ("train", "validation", "test")
_OWN_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
              "dev": "validation", "test": "test"}  # fmt: skip
_FIRST_WORD = re.compile(r"[A-Za-z]+")


def own_split(path: str) -> str | None:
    """Returns the split that a path names (`train/...`, `valid-00003.jsonl`, `test.txt`), or None."""
    first, slash, _ = path.partition("/")
    if slash:
        return _OWN_NAMES.get(first.lower())
    word = _FIRST_WORD.match(first)
    return _OWN_NAMES.get(word.group().lower()) if word else None


@dataclasses.dataclass(frozen=True)
class Splitter:
    """Assigns documents to splits by their names: a document's split does not depend on other documents.

    Attributes:
        validation_percent: percentage of documents for validation.
        test_percent: percentage of documents for test.
    """

    validation_percent: float
    test_percent: float

    def split_of(self, name: str) -> str:
        """Returns the split of a document."""
        share = int.from_bytes(hashlib.sha256(name.encode("utf-8", "backslashreplace")).digest()[:8], "big") / 2**64
        if share * 100 < self.validation_percent:
            return "validation"
        return "test" if share * 100 < self.validation_percent + self.test_percent else "train"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits with a positive share of documents."""
        shares = {"train": 1.0, "validation": self.validation_percent, "test": self.test_percent}
        return tuple(split for split in SPLITS if shares[split])


def has_own_splits(paths: Iterable[str]) -> bool:
    """Returns whether every path names its split. If only some do, their folders have such names by coincidence."""
    paths = list(paths)
    return bool(paths) and all(own_split(path) for path in paths)


def splits_found(paths: Sequence[str]) -> tuple[str, ...]:
    """Returns the splits that paths name, in the order of `SPLITS`."""
    found = {own_split(path) for path in paths}
    return tuple(split for split in SPLITS if split in found)
