"""Base class of sources that read a folder of files: listing, and the corpus's own splits or hashed ones."""

import abc
import functools
from collections.abc import Sequence
from typing import Any

from etils import epath

from block_recurrent.data.sources import listing, splits
from block_recurrent.data.sources.files import is_regular
from block_recurrent.data.sources.source import Counts, Record, Source
from block_recurrent.data.sources.stray import stray_reason
from block_recurrent.errors import InputError

IRREGULAR = "links to folders, broken links and special files (left out)"


class FolderSource(Source):
    """A source that reads the files of a folder. Subclasses select files and read documents from them.

    A corpus with folders or files named after splits has its own splits; see `splits.rule_of`. Otherwise a hash of each
    document's name decides its split.

    Args:
        root: folder, or one file; local or `gs://`.
        splitter: divides the documents of a corpus without its own splits.

    Attributes:
        strict_splits: as in `splits.rule_of`.
        auxiliary: paths of files that the source uses without reading documents from them.
    """

    strict_splits = False
    auxiliary: tuple[str, ...] = ()

    def __init__(self, root: str, splitter: splits.Splitter):
        self.root = root.rstrip("/") or root
        self.splitter = splitter
        self.has_own_splits = self._listing.rule is not None

    @abc.abstractmethod
    def wanted(self, path: str) -> bool:
        """Returns whether the source reads files with the name of a relative path."""
        ...

    def why_left_out(self, path: str) -> str | None:
        """Returns the reason for leaving out the file at a relative path; None for a file to read."""
        if reason := stray_reason(path):
            return reason
        if not self.wanted(path):
            return listing.reason_of_ending(path)
        return None if is_regular(self.root, path) else IRREGULAR

    def hashed_name(self, path: str) -> str:
        """Returns the name whose hash decides the split of the file at a relative path."""
        return path

    @functools.cached_property
    def _listing(self) -> listing.Listing:
        root = epath.Path(self.root)
        if not root.exists():
            raise InputError(f"source {self.name}: its input {self.root} does not exist")
        if not root.is_dir():
            return listing.Listing(files=[("", root.stat().length)], rule=splits.rule_of([self.display("")]))
        rules = listing.ListingRules(
            source=self.name,
            why_left_out=self.why_left_out,
            hashed_split=lambda path: self.splitter.split_of(self.hashed_name(path)),
            strict=self.strict_splits,
            auxiliary=self.auxiliary,
        )
        return listing.list_folder(self.root, rules)

    def own_split(self, path: str) -> str | None:
        """Returns the split that the corpus itself has for a relative path, or None."""
        rule = self._listing.rule
        return rule(self.display(path)) if rule else None

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source.splits`."""
        rule = self._listing.rule
        if rule is not None:
            return splits.splits_found([self.display(path) for path, _ in self._listing.files], rule)
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

    @property
    def warnings(self) -> tuple[str, ...]:
        """See `Source.warnings`."""
        found = self._listing
        if found.outside is not None:
            count = found.left_out[None, listing.OUTSIDE]
            return (
                f"{self.root}: the folders or files of the splits {', '.join(self.splits)} are used; {count:,} other "
                f"files, such as {found.outside}, are in no split and are left out",
            )
        if found.ignored_folders:
            folders = ", ".join(found.ignored_folders)
            return (
                f"{self.root}: a hash divides the documents of all folders into splits, those of {folders} too; to use "
                "these as splits, set PrepareConfig.input to the folder that holds only them",
            )
        return ()

    def list_files(self, split: str) -> Sequence[Record]:
        """See `Source.list_files`: all files that may have documents of the split."""
        files = [(self.display(path), path, size) for path, size in self._listing.files]
        return [Record(*file) for file in files if not self.has_own_splits or self.own_split(file[1]) == split]

    def left_out(self, split: str) -> Counts:
        """See `Source.left_out`. Files in no split are counted with the first one."""
        counts, existing = Counts(), self.splits
        for (own, reason), count in self._listing.left_out.items():
            if (own if own in existing else existing[0]) == split:
                counts[reason] += count
        return counts

    def belongs(self, name: str, split: str) -> bool:
        """Returns whether a document of a listed file belongs to the split."""
        return self.has_own_splits or self.splitter.split_of(name) == split

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_listing"}
