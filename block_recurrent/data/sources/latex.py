"""Joins a paper's LaTeX files into one text: the main file first, with included files in place."""

import posixpath
import re
from collections.abc import Mapping

ENDINGS = (".tex", ".ltx", ".latex")
NOT_FOUND = "included files that are not there (the command is kept)"
NO_MAIN = "papers without a main file (files in path order)"
_USUAL_NAMES = ("main", "ms", "paper", "article", "arxiv", "manuscript")
_CLASS = re.compile(r"^[^%\n]*\\document(?:class|style)\b", re.MULTILINE)
_BEGIN = re.compile(r"^[^%\n]*\\begin\s*\{document\}", re.MULTILINE)
# \input{name}, \include{name}, \subfile{name} and TeX's \input name.
_INCLUDE = re.compile(r"\\(?:input|include|subfile)\b(?:\s*\{\s*([^{}\n]+?)\s*\}|[ \t]+([^\s{}\\%]+))")
_COMMENT = re.compile(r"(?<!\\)(?:\\\\)*%")
_DEEPEST = 50


class Paper:
    """The LaTeX files of one paper.

    Args:
        files: text of each file with one of `ENDINGS`, by path, with "/" as separator.

    Attributes:
        main: path of the main file, or None.
        not_found: number of included files that do not exist, counted by `text`.
    """

    def __init__(self, files: Mapping[str, str]):
        self._files = dict(sorted(files.items()))
        self._used: set[str] = set()
        self.main = self._find_main()
        self.not_found = 0

    def _find_main(self) -> str | None:
        """Returns the file with a document class: first by usual name, then by depth, size and path."""
        with_class = [path for path, text in self._files.items() if _CLASS.search(text)]
        whole = [path for path in with_class if _BEGIN.search(self._files[path])]

        def rank(path: str) -> tuple[bool, int, int, str]:
            stem = posixpath.splitext(posixpath.basename(path))[0].lower()
            return stem not in _USUAL_NAMES, path.count("/"), -len(self._files[path]), path

        return min(whole or with_class, key=rank, default=None)

    def text(self) -> str:
        """Returns the main file with included files in place, then all other files in path order.

        Each file appears once. The command stays if its file appeared before or does not exist, or if the command is
        commented out.
        """
        parts = []
        for path in [self.main or "", *self._files]:
            if path in self._files and path not in self._used:
                parts.append(self._expand(path, posixpath.dirname(path), 0))
        return "".join(part.rstrip("\n") + "\n" for part in parts)

    def _expand(self, path: str, folder: str, depth: int) -> str:
        self._used.add(path)
        text, pieces, done = self._files[path], [], 0
        for match in _INCLUDE.finditer(text):
            if _COMMENT.search(text, text.rfind("\n", 0, match.start()) + 1, match.start()):
                continue
            found = self._resolve(match[1] or match[2], folder, posixpath.dirname(path))
            if found is None:
                self.not_found += 1
            elif found not in self._used and depth < _DEEPEST:
                pieces += [text[done : match.start()], self._expand(found, folder, depth + 1)]
                done = match.end()
        return "".join([*pieces, text[done:]])

    def _resolve(self, wanted: str, *folders: str) -> str | None:
        """Finds an included file, relative to the main file's folder or, in some papers, to the including file's."""
        for folder in folders:
            path = posixpath.normpath(posixpath.join(folder, wanted.strip('"')))
            for name in (path, *(path + ending for ending in ENDINGS)):
                if name in self._files:
                    return name
        return None
