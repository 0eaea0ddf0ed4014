"""Assigns documents to splits: the corpus's own, or by a hash of the document's name."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence

SPLITS = ("train", "validation", "test")
_OWN_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
              "dev": "validation", "test": "test"}  # fmt: skip
_FIRST_WORD = re.compile(r"[A-Za-z]+")
# `train.txt`, `train-00003.jsonl.gz`, `train-00003-of-00010.jsonl`, but not `train station.txt`.
_WHOLE_NAME = re.compile(r"([A-Za-z]+)(?:[-_.]?\d+(?:[-_]of[-_]\d+)?)?(?:\.\w+)*")
SplitRule = Callable[[str], str | None]
SplitOfRules = tuple[str | None, str | None, str | None]


def own_split(path: str) -> str | None:
    """Returns the split that a path names (`train/...`, `valid-00003.jsonl`, `test.txt`), or None."""
    first, slash, _ = path.partition("/")
    if slash:
        return _OWN_NAMES.get(first.lower())
    word = _FIRST_WORD.match(first)
    return _OWN_NAMES.get(word.group().lower()) if word else None


def marked_split(path: str) -> str | None:
    """Returns the split of a path in a split's folder, or of a file whose name is a split's name and a number."""
    first, slash, _ = path.partition("/")
    word = None if slash else _WHOLE_NAME.fullmatch(first)
    return _OWN_NAMES.get((word.group(1) if word else first).lower())


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


def rule_of(paths: Sequence[str], *, strict: bool = False) -> SplitRule | None:
    """Finds out whether a corpus has its own splits.

    It has if every path names a split, or if there are folders or files of splits with other files next to them:
    a folder for training, or at least two splits. What is next to them is in no split.

    Args:
        paths: paths of all files that the source reads.
        strict: if True, folders next to those of the splits mean that the names are a coincidence, as with a
            repository named `test`; only files may be next to them.

    Returns:
        The split of a path, None for paths in no split; or None for a corpus without its own splits.
    """
    if not paths:
        return None
    if all(own_split(path) for path in paths):
        return own_split
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    if strict:
        return _folder_split if folders and all(_OWN_NAMES.get(folder.lower()) for folder in folders) else None
    in_folders = {marked_split(path) for path in paths if "/" in path} - {None}
    marked = {marked_split(path) for path in paths} - {None}
    if "train" in in_folders or len(marked) > 1:
        return marked_split
    only_splits = folders and all(_OWN_NAMES.get(folder.lower()) for folder in folders)
    return marked_split if only_splits else None


def _folder_split(path: str) -> str | None:
    return own_split(path) if "/" in path else None


# Every rule that `rule_of` may return.
RULES: tuple[SplitRule, ...] = (own_split, marked_split, _folder_split)


def split_by_rule(path: str) -> SplitOfRules:
    """Returns the split of a path by each of `RULES`."""
    first, second, third = RULES
    return first(path), second(path), third(path)


def split_folders_inside(paths: Iterable[str]) -> tuple[str, ...]:
    """Returns folders, at any depth, with the names of splits: two next to each other, or one at the top.

    Args:
        paths: paths of a corpus that is divided by a hash.

    Returns:
        Paths of the first such folders, sorted; empty if there are none.
    """
    found: dict[str, set[str]] = {}
    for path in paths:
        parts = path.split("/")[:-1]
        for depth, part in enumerate(parts):
            if _OWN_NAMES.get(part.lower()):
                found.setdefault("/".join(parts[:depth]), set()).add(part)
    for above, names in sorted(found.items()):
        if not above or len({_OWN_NAMES[name.lower()] for name in names}) > 1:
            return tuple(f"{above}/{name}/" if above else f"{name}/" for name in sorted(names))
    return ()


def splits_found(paths: Iterable[str], rule: SplitRule) -> tuple[str, ...]:
    """Returns the splits of paths, in the order of `SPLITS`."""
    found = {rule(path) for path in paths}
    return tuple(split for split in SPLITS if split in found)
