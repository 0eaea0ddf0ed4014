"""A folder of repositories: one document per repository, all its source files in path order."""

from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from block_recurrent.data.sources import code, languages
from block_recurrent.data.sources.files import is_link, is_regular
from block_recurrent.data.sources.folder import IRREGULAR, FolderSource
from block_recurrent.data.sources.generated import is_generated
from block_recurrent.data.sources.listing import reason_of_ending
from block_recurrent.data.sources.source import Counts, Record, TextDocument
from block_recurrent.data.sources.splits import Splitter
from block_recurrent.data.sources.stray import stray_reason
from block_recurrent.data.sources.text import BYTE_ORDER_MARK, decode_text
from block_recurrent.errors import InputError

LINK = "links (not followed)"
NO_REPOSITORY = "files outside the folders of repositories (left out)"
EMPTY = "repositories without source files (left out)"


class Github(FolderSource):
    """One document per repository: every source file after a comment with its path, in path order.

    Leaves out vendored, generated and binary files and files above 1 MB (see `code.py`). Does not follow links.

    Args:
        root: folder of repositories, or of `train/`, `validation/` and `test/` with repositories; local or `gs://`.
        splitter: divides repositories that are not in folders of splits.
        extensions: endings of the files to read, with their dots, in upper or lower case; None means the source files
            of common programming languages (see `languages.py`).
        depth: folder levels of a repository's name: 1 for `<repository>`, 2 for `<owner>/<repository>`.

    Raises:
        InputError: the folder has no source file.
    """

    name = "github"
    rules_version = 2  # 2: more languages, ignores the case of endings; precise rules for generated files
    strict_splits = True

    def __init__(self, root: str, splitter: Splitter, *, extensions: tuple[str, ...] | None = None, depth: int = 1):
        self._extensions = None if extensions is None else tuple(sorted(extensions))
        self._depth = depth
        self._repositories: set[str] = set()
        if not epath.Path(root).is_dir():
            raise InputError(f"source github: its input {root} is not a folder of repositories")
        super().__init__(root, splitter)

    def wanted(self, path: str) -> bool:
        """See `FolderSource.wanted`."""
        if self._extensions is None:
            return languages.is_source(path)
        return path.lower().endswith(tuple(ending.lower() for ending in self._extensions))

    def why_left_out(self, path: str) -> str | None:
        """See `FolderSource.why_left_out`. Hidden files may be source files; hidden folders are vendored."""
        if "/" in path:
            self._repositories.add("/".join(path.split("/")[:-1][: self._depth + 1]))
        if reason := stray_reason(path, hidden=False):
            return reason
        if not self.wanted(path):
            return reason_of_ending(path)
        if is_link(self.root, path):
            return LINK
        return None if is_regular(self.root, path) else IRREGULAR

    def hashed_name(self, path: str) -> str:
        """See `FolderSource.hashed_name`: the repository."""
        return "/".join(path.split("/")[:-1][: self._depth])

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`."""
        extensions = "default" if self._extensions is None else list(self._extensions)
        return {**super().settings, "extensions": extensions, "depth": self._depth}

    @property
    def _above(self) -> int:
        """Number of folders above those of a repository's name."""
        return 1 if self.has_own_splits else 0

    def list_files(self, split: str) -> Sequence[Record]:
        """See `Source.list_files`: one record per repository."""
        repositories: dict[str, list[tuple[str, int]]] = {}
        for path, size in self._listing.files:
            name = self._repository(path)
            if name is not None and self._split_of(path, name) == split:
                repositories.setdefault(name, []).append((path, size))
        return [
            Record(name, [path for path, _ in files], sum(size for _, size in files))
            for name, files in sorted(repositories.items())
        ]

    def _repository(self, path: str) -> str | None:
        """Returns the repository of a file; None for a file that is in none."""
        folders = path.split("/")[:-1]
        found = folders[self._above : self._above + self._depth]
        return "/".join(found) if len(found) == self._depth else None

    def _split_of(self, path: str, repository: str) -> str | None:
        return self.own_split(path) if self.has_own_splits else self.splitter.split_of(repository)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_repositories"}

    def left_out(self, split: str) -> Counts:
        """See `Source.left_out`; counts repositories without any source file, too."""
        counts, first = super().left_out(split), self.splits[0]
        found = set()
        for path, _ in self._listing.files:
            name = self._repository(path)
            found.add((self.own_split(path), name))
            counts[NO_REPOSITORY] += name is None and ((self.own_split(path) or first) == split)
        empty = set()
        for folder in self._repositories:
            name = self._repository(f"{folder}/x")
            if name is not None and (self.own_split(f"{folder}/x"), name) not in found:
                empty.add((self._split_of(f"{folder}/x", name), name))
        counts[EMPTY] += sum((own or first) == split for own, _ in empty)
        return +counts

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """See `Source.documents`."""
        parts = []
        for path in record.payload:
            inside = path.split("/", self._above + self._depth)[-1]
            data = self._read(path, inside, counts)
            if data is not None:
                text = decode_text(data, counts)
                parts += [languages.path_comment(inside), text if text.endswith("\n") else text + "\n"]
        if parts:
            yield TextDocument(record.name, "".join(parts))
        else:
            counts[EMPTY] += 1

    def _read(self, path: str, inside: str, counts: Counts) -> bytes | None:
        """Returns a file's bytes, or None if the file is left out."""
        if code.is_vendored(inside):
            counts[code.VENDORED] += 1
            return None
        data = (epath.Path(self.root) / path).read_bytes()
        if not data.removeprefix(BYTE_ORDER_MARK.encode()).strip():
            counts[code.EMPTY_FILE] += 1
        elif len(data) > code.LARGEST_FILE:
            counts[code.TOO_LARGE] += 1
        elif code.is_binary(data):
            counts[code.BINARY] += 1
        elif is_generated(inside, data):
            counts[code.GENERATED] += 1
        elif code.has_long_line(data):
            counts[code.LONG_LINES] += 1
        else:
            return data
        return None
