"""Joins a paper's LaTeX files into one text: the main file first, each included file where it is included."""

import collections
import dataclasses
import functools
import posixpath
from collections.abc import Callable, Iterator, Mapping

from block_recurrent.data.sources.inclusions import Inclusion, LatexFile, find_macros, scan

ENDINGS = (".tex", ".ltx", ".latex")
NOT_FOUND = "included files that are not there (the command is kept)"
NEVER_INCLUDED = "LaTeX files that no file includes, besides the main file (appended)"
NO_MAIN = "papers without a main file (files in path order)"
_USUAL_NAMES = ("main", "ms", "paper", "article", "arxiv", "manuscript")
_PART_CLASSES = ("standalone", "subfiles")  # classes of files that other files include


@dataclasses.dataclass(frozen=True)
class _Place:
    r"""Folders from which a file's inclusions are found: that of the root file, and the one that `\import` has set."""

    root: str
    imported: str


@dataclasses.dataclass
class _Open:
    """A file while its text is joined."""

    path: str
    place: _Place
    inclusions: Iterator[Inclusion]
    done: int = 0


class Paper:
    """The files of one paper, as a graph of inclusions.

    The main file begins the document and reaches the most text, itself included; among equals, the usual name, the
    upper folder and the larger file come first.

    Args:
        files: text of each file with one of `ENDINGS`, by path, with "/" as separator.
        others: other files that the paper may include by their whole names.
        decode: returns the text of such a file.

    Attributes:
        main: path of the main file, or None.
        not_found: number of inclusions of files that do not exist, counted by `text`.
        never_included: number of files that are neither the main file nor included by another file, counted by `text`.
    """

    def __init__(
        self,
        files: Mapping[str, str],
        others: Mapping[str, bytes] | None = None,
        decode: Callable[[bytes], str] = lambda data: data.decode("utf-8", "replace"),
    ):
        self._files = dict(sorted(files.items()))
        self._others = dict(others or {})
        self._decode = decode
        self._macros = find_macros(self._files.values())
        self._decoded: dict[str, str] = {}
        self._scanned: dict[str, LatexFile] = {}
        self._paths = {path: path for path in (*self._others, *self._files)}
        self._any_case: dict[str, str] = {}
        for path in (*self._files, *self._others):
            self._any_case.setdefault(path.lower(), path)
        self._used: set[str] = set()
        self.not_found = self.never_included = 0
        self.main = self._find_main()

    @property
    def others_used(self) -> int:
        """Number of files without one of `ENDINGS` in the text."""
        return len(self._used & self._others.keys())

    def text(self) -> str:
        """Returns the main file with included files in place, then all other files that no file includes.

        Each file appears once, where it is included first. The command stays if its file appeared before or does not
        exist.
        """
        roots = self._roots
        order = [*([self.main] if self.main else []), *roots, *(path for path in self._files if path not in roots)]
        parts = []
        for path in order:
            if path not in self._used:
                parts.append(self._join(path))
                self.never_included += self.main not in (None, path)
        return "".join(part.rstrip("\n") + "\n" for part in parts)

    @functools.cached_property
    def _roots(self) -> dict[str, None]:
        """The files that no file includes, in path order."""
        included = set()
        for path in self._files:
            above = [posixpath.dirname(path)]
            while above[-1]:
                above.append(posixpath.dirname(above[-1]))
            for inclusion in self._scan(path).inclusions:
                found = [self._find(inclusion, _Place(folder, folder), path) for folder in above]
                included.update([part for part in found if part not in (None, path)][:1])
        return {path: None for path in self._files if path not in included}

    def _find_main(self) -> str | None:
        if len(self._files) == 1:
            return next(iter(self._files))
        candidates = {path: self._reached(path) for path in self._roots}
        reached = set().union(*candidates.values())
        rest = self._files.keys() - reached
        for path in sorted(rest, key=lambda path: (not self._scan(path).begins, *self._rank(path))):
            if path not in reached:  # in a circle, where every file is included
                candidates[path] = self._reached(path)
                reached |= candidates[path]

        def text_reached(path: str) -> int:
            return sum(len(self._files[file]) for file in candidates[path])

        whole = [path for path, found in candidates.items() if any(self._scan(file).begins for file in found)]
        whole = [path for path in whole if self._scan(path).document_class not in _PART_CLASSES] or whole
        if not whole:  # plain TeX, or a document that ends early
            whole = [path for path, found in candidates.items() if len(found) > 1 or self._scan(path).plain]
            whole = whole or [path for path in candidates if self._scan(path).document_class is not None]
        return min(whole, key=lambda path: (-text_reached(path), *self._rank(path)), default=None)

    def _rank(self, path: str) -> tuple[bool, int, int, str]:
        stem = posixpath.splitext(posixpath.basename(path))[0].lower()
        return stem not in _USUAL_NAMES, path.count("/"), -len(self._files[path]), path

    def _reached(self, root: str) -> set[str]:
        """Returns the LaTeX files that a file includes, directly or not, and the file itself."""
        found, queue = {root}, collections.deque([(root, _place_of(root))])
        while queue:
            path, place = queue.popleft()
            for inclusion in self._scan(path).inclusions:
                part = self._find(inclusion, place, path)
                if part in self._files and part not in found and not inclusion.verbatim:
                    found.add(part)
                    queue.append((part, _place_in(inclusion, place, part)))
        return found

    def _join(self, root: str) -> str:
        """Returns a file's text with its parts in place. Not recursive, because chains may have any length."""
        self._used.add(root)
        pieces, opened = [], [self._open(root, _place_of(root))]
        while opened:
            file = opened[-1]
            for inclusion in file.inclusions:
                part = self._find(inclusion, file.place, file.path)
                if part is None:
                    self.not_found += not self._is_written(inclusion.name)
                if part is None or part in self._used:
                    continue
                self._used.add(part)
                pieces.append(self._text(file.path)[file.done : inclusion.start])
                file.done = inclusion.end
                if inclusion.verbatim:
                    pieces.append(self._text(part))
                else:
                    opened.append(self._open(part, _place_in(inclusion, file.place, part)))
                    break
            else:
                pieces.append(self._text(file.path)[file.done :])
                opened.pop()
        return "".join(pieces)

    def _open(self, path: str, place: _Place) -> _Open:
        return _Open(path, place, iter(self._scan(path).inclusions))

    def _text(self, path: str) -> str:
        if path in self._files:
            return self._files[path]
        if path not in self._decoded:
            self._decoded[path] = self._decode(self._others[path])
        return self._decoded[path]

    def _scan(self, path: str) -> LatexFile:
        if path not in self._scanned:
            self._scanned[path] = scan(self._text(path), self._macros)
        return self._scanned[path]

    def _is_written(self, name: str) -> bool:
        """Returns whether the paper itself contains the file's text, in an environment `filecontents`."""
        names = {name, *(name + ending for ending in ENDINGS)}
        return any(names & scanned.written for scanned in self._scanned.values())

    def _find(self, inclusion: Inclusion, place: _Place, path: str) -> str | None:
        """Finds an included file as LaTeX does, or else in another case, or else without the folders of its name."""
        own = posixpath.dirname(path)
        folders = [place.imported, place.root, own, *(posixpath.join(place.root, f) for f in self._macros.folders)]
        if inclusion.folder is not None:
            bases = [place.imported, own, place.root] if inclusion.relative else [place.root, own, place.imported]
            folders = [posixpath.join(base, inclusion.folder) for base in bases]
        elif inclusion.relative:
            folders = [place.imported, own, place.root]
        name = inclusion.name
        parts = posixpath.join(inclusion.folder or "", name).split("/")
        bare = [posixpath.join(f, *parts[k:]) for k in range(1, len(parts)) for f in (place.root, own)]
        for wanted in ([posixpath.join(folder, name) for folder in folders], bare):
            for table, key in ((self._paths, str), (self._any_case, str.lower)):
                for candidate in wanted:
                    if found := self._look_up(key(posixpath.normpath(candidate)), table):
                        return found
        return None

    def _look_up(self, path: str, table: Mapping[str, str]) -> str | None:
        endings = ("", *ENDINGS) if path.lower().endswith(ENDINGS) else (ENDINGS[0], "", *ENDINGS[1:])
        return next((table[path + ending] for ending in endings if path + ending in table), None)


def _place_of(root: str) -> _Place:
    return _Place(posixpath.dirname(root), posixpath.dirname(root))


def _place_in(inclusion: Inclusion, place: _Place, part: str) -> _Place:
    r"""Returns the place of an included file: `\import` and `\subfile` change the folder, `\input` does not."""
    if inclusion.folder is not None or inclusion.relative:
        return _Place(place.root, posixpath.dirname(part))
    return place
