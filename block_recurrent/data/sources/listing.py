"""The files of an input folder: those to read, the split of each, and the numbers of those that are left out."""

import collections
import dataclasses
import re
from collections.abc import Callable

from block_recurrent.data.sources import splits
from block_recurrent.data.sources.files import list_paths, with_sizes
from block_recurrent.errors import InputError

OUTSIDE = "files outside the folders of the splits (left out)"
NO_ENDING = "files without an ending (not read)"
OTHER_ENDINGS = "files with other endings (not read)"
_ENDING = re.compile(r"(?<=.)\.[a-z0-9_+-]{1,16}$")
_MOST_ENDINGS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a folder.

    Attributes:
        files: (path, bytes) of the files to read, sorted by path; the path is empty if the input is one file.
        rule: returns the split of a path if the corpus has its own splits, else None.
        left_out: numbers of the other files by (split, reason); the split is None for a file in no split.
        outside: the first path that the source would read but that is in no split, or None.
        ignored_folders: folders with the names of splits that are not used as splits.
    """

    files: list[tuple[str, int]]
    rule: splits.SplitRule | None
    left_out: dict[tuple[str | None, str], int] = dataclasses.field(default_factory=dict)
    outside: str | None = None
    ignored_folders: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListingRules:
    """The rules of a source for `list_folder`.

    Attributes:
        source: name of the source, for messages.
        why_left_out: returns the reason for leaving out the file at a relative path; None for a file to read.
        hashed_split: returns the split of the file at a relative path in a corpus without its own splits.
        strict: as in `splits.rule_of`.
        auxiliary: paths of files that the source uses without reading documents from them.
    """

    source: str
    why_left_out: Callable[[str], str | None]
    hashed_split: Callable[[str], str]
    strict: bool = False
    auxiliary: tuple[str, ...] = ()


def list_folder(root: str, rules: ListingRules) -> Listing:
    """Lists a folder.

    Args:
        root: the folder, local or `gs://`.
        rules: the source's rules.

    Returns:
        The listing.

    Raises:
        InputError: a folder cannot be read, or there is no file to read.
    """
    kept: list[str] = []
    # Counted by every possible split, because the paths may be too many to keep.
    others: collections.Counter[tuple[splits.SplitOfRules, str, str]] = collections.Counter()
    for path in list_paths(rules.source, root):
        if path in rules.auxiliary:
            continue
        reason = rules.why_left_out(path)
        if reason is None:
            kept.append(path)
        else:
            others[splits.split_by_rule(path), rules.hashed_split(path), reason] += 1
    kept.sort()
    rule = splits.rule_of(kept, strict=rules.strict)
    left_out: collections.Counter[tuple[str | None, str]] = collections.Counter()
    for (by_rule, hashed, reason), count in others.items():
        left_out[by_rule[splits.RULES.index(rule)] if rule else hashed, reason] += count
    if not kept:
        raise InputError(_nothing_found(rules.source, root, left_out))
    outside = [path for path in kept if rule is not None and rule(path) is None]
    if outside:
        left_out[None, OUTSIDE] += len(outside)
    return Listing(
        files=with_sizes(root, [path for path in kept if rule is None or rule(path) is not None]),
        rule=rule,
        left_out=_with_few_endings(left_out),
        outside=outside[0] if outside else None,
        ignored_folders=() if rule else splits.split_folders_inside(kept),
    )


def reason_of_ending(path: str) -> str:
    """Returns the reason for leaving out a file of a kind that the source does not read."""
    ending = _ENDING.search(path.rsplit("/", 1)[-1].lower())
    return f"files ending in {ending.group()} (not read)" if ending else NO_ENDING


def _with_few_endings(left_out: collections.Counter[tuple[str | None, str]]) -> dict[tuple[str | None, str], int]:
    """Merges the counts of rare endings; a large folder may have thousands of endings."""
    endings: collections.Counter[str] = collections.Counter()
    for (_, reason), count in left_out.items():
        if reason.startswith("files ending in "):
            endings[reason] += count
    rare = set(sorted(endings, key=lambda reason: (-endings[reason], reason))[_MOST_ENDINGS:])
    merged: collections.Counter[tuple[str | None, str]] = collections.Counter()
    for (split, reason), count in left_out.items():
        merged[split, OTHER_ENDINGS if reason in rare else reason] += count
    return dict(merged)


def _nothing_found(source: str, root: str, left_out: collections.Counter[tuple[str | None, str]]) -> str:
    reasons: collections.Counter[str] = collections.Counter()
    for (_, reason), count in left_out.items():
        reasons[reason] += count
    found = "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(5))
    message = f"source {source}: its input {root} has no file that this source reads"
    return f"{message}; it has {found}" if found else message
