r"""Finds the commands of a LaTeX file that include other files, where LaTeX itself would find them.

Comments, verbatim text, `\iffalse ... \fi` and everything after `\endinput` or `\end{document}` include nothing.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping

# \input{name}, \include{name} and relatives; plain TeX's \input takes a name without braces, too.
_ONE = ("input", "include", "subfile", "subfileinclude", "InputIfFileExists", "@input", "includestandalone")
# \import{folder}{name} and relatives; those that begin with "sub" are relative to the including file's folder.
_TWO = ("import", "inputfrom", "includefrom", "subimport", "subinputfrom", "subincludefrom")
# Inclusion of text that LaTeX prints and does not execute; the argument with the name.
_VERBATIM = {"verbatiminput": 0, "VerbatimInput": 0, "BVerbatimInput": 0, "LVerbatimInput": 0, "lstinputlisting": 0,
             "verbatimtabinput": 0, "inputminted": 1, "listinginput": 1}  # fmt: skip
_VERBATIM_ENVIRONMENTS = ("verbatim", "Verbatim", "BVerbatim", "LVerbatim", "SaveVerbatim", "VerbatimOut", "spverbatim",
                          "lstlisting", "minted", "comment", "filecontents", "verbatimtab", "verbatimwrite",
                          "tcblisting")  # fmt: skip
_END = r"(?![A-Za-z@])"
_GAP = r"(?:\s|%[^\r\n]*+)*+"
_ARGUMENT = re.compile(_GAP + r"\{((?:[^{}%]|%[^\r\n]*+|\{(?:[^{}%]|%[^\r\n]*+)*+\})*+)\}")
_OPTIONS = re.compile(rf"\*?(?:{_GAP}\[[^\[\]]*+\])?+")
_BARE = re.compile(_GAP + r'(?:"([^"\r\n]+)"|([\w./@~-][^\s{}\\%#"$&]*+))')
_COMMENT = re.compile(r"%[^\r\n]*+(?:\r\n|\r|\n)?[ \t]*+")
_CONDITIONAL = re.compile(rf"%[^\r\n]*+|\\(?P<begin>if[A-Za-z@]*)|\\(?P<end>else|fi){_END}|\\[^A-Za-z]")
_NO_CONDITIONALS = {"iff", "ifthenelse", "ifdef", "ifundef", "ifcsdef", "ifbool", "iftoggle", "ifstrequal", "ifblank"}
_MOST_UNCLOSED = 20  # searches to the end of a file for a missing `\fi`
_ASSIGNS = re.compile(r"\\let\s*\\if[A-Za-z@]*\s*=?\s*$")
_NAMED_ENVIRONMENT = re.compile(
    r"\\(?:lstnewenvironment|excludecomment|newtcblisting|DefineVerbatimEnvironment|newminted(?:\[\w*\])?)\s*\{(\w+\*?)\}"
)
_TEXT_MACRO = re.compile(
    r"\\(?:(?:(?:re)?newcommand|providecommand)\*?\s*\{?\\([A-Za-z@]+)\}?|def\s*\\([A-Za-z@]+))\s*\{([^{}\\%#]*)\}"
)
_FILE_MACRO = re.compile(
    r"\\(?:(?:(?:re)?newcommand|providecommand)\*?\s*\{?\\([A-Za-z@]+)\}?\s*\[1\]|def\s*\\([A-Za-z@]+)\s*#1)\s*\{"
    r"(?:[^{}]|\{[^{}]*\})*?\\(?:input|include|subfile)\s*\{([^{}\\%]*#1[^{}\\%]*)\}"
)
_INPUT_PATH = re.compile(r"\\input@path\s*\{((?:\s*\{[^{}]*\})+)\s*\}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inclusion:
    r"""One command that includes a file.

    Attributes:
        start: position of the command.
        end: position after it.
        name: the file's name as written, without comments and quotes; macros of the paper are expanded.
        folder: the folder as written, of commands such as `\import`, or None.
        relative: True if the folder, or the folders of names in the file, are relative to the including file.
        verbatim: True if LaTeX prints the file's text and does not execute it.
    """

    start: int
    end: int
    name: str
    folder: str | None = None
    relative: bool = False
    verbatim: bool = False


@dataclasses.dataclass(frozen=True)
class LatexFile:
    """The inclusions and properties of a LaTeX file.

    Attributes:
        inclusions: the commands that include files, in order.
        document_class: name of the document class or style, or None.
        begins: True if the file begins the document.
        plain: True if the file has commands of plain TeX.
        written: names of files that the file itself writes (`filecontents`).
    """

    inclusions: tuple[Inclusion, ...]
    document_class: str | None
    begins: bool
    plain: bool
    written: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Macros:
    """Definitions of a paper that matter for inclusions.

    Attributes:
        texts: text of each macro without arguments.
        files: file name of each macro with one argument that includes a file, with `#1` for the argument.
        environments: environments with verbatim or ignored text.
        folders: folders that LaTeX searches, besides the main file's.
    """

    texts: Mapping[str, str]
    files: Mapping[str, str]
    environments: frozenset[str]
    folders: tuple[str, ...]


def find_macros(texts: Iterable[str]) -> Macros:
    """Collects the definitions of all files of a paper."""
    values, files, environments, folders = {}, {}, set(), []
    for text in texts:
        for match in _TEXT_MACRO.finditer(text):
            values[match[1] or match[2]] = match[3].strip()
        for match in _FILE_MACRO.finditer(text):
            files[match[1] or match[2]] = match[3].strip()
        environments.update(_NAMED_ENVIRONMENT.findall(text))
        for match in _INPUT_PATH.finditer(text):
            folders += [folder.strip() for folder in re.findall(r"\{([^{}]*)\}", match[1])]
    known = {*_ONE, *_TWO, *_VERBATIM}
    own = {name: file for name, file in files.items() if name not in known}
    return Macros(values, own, frozenset((*_VERBATIM_ENVIRONMENTS, *environments)), tuple(dict.fromkeys(folders)))


@functools.lru_cache(maxsize=64)
def _scanner(own: tuple[str, ...]) -> re.Pattern[str]:
    """Returns the pattern of everything that matters for inclusions; `own` are the paper's own commands."""
    commands = "|".join(map(re.escape, (*_ONE, *_TWO, *_VERBATIM, *own)))
    return re.compile(
        r"%[^\r\n]*+"
        rf"|\\(?P<verb>verb|Verb|lstinline|mintinline|spverb){_END}"
        rf"|\\(?:url|path|nolinkurl|href){_END}\s*\{{[^{{}}\r\n]*+\}}"
        r"|\\begin\s*\{(?P<environment>[^{}\r\n]*+)\}"
        rf"|(?P<stop>\\end\s*\{{document\}}|\\endinput{_END})"
        rf"|(?P<never>\\iffalse{_END}|\\if0(?=\s)|\\if(?:01|10)(?!\d))"
        rf"|\\(?P<kind>documentclass|documentstyle){_END}"
        rf"|\\(?P<plain>bye|magnification){_END}"
        rf"|\\(?P<command>{commands}){_END}"
        r"|\\[^A-Za-z]"
    )


class _Scan:
    """One pass over a file."""

    def __init__(self, text: str, macros: Macros):
        self.text, self.macros = text, macros
        self.inclusions: list[Inclusion] = []
        self.written: set[str] = set()
        self.document_class: str | None = None
        self.begins = self.plain = False
        self.unclosed = 0

    def run(self) -> LatexFile:
        scanner, position = _scanner(tuple(self.macros.files)), 0
        while match := scanner.search(self.text, position):
            position = match.end()
            if match["stop"]:
                break
            if match["command"]:
                position = self._command(match["command"], match.start(), position)
            elif match["environment"]:
                position = self._environment(match["environment"].strip(), position)
            elif match["never"]:
                position = self._after_never(match.start(), position)
            elif match["verb"]:
                position = self._after_verb(match["verb"], position)
            elif match["kind"]:
                name = _ARGUMENT.match(self.text, self._after_options(position))
                self.document_class = self.document_class or (_cleaned(name[1]) if name else "")
            elif match["plain"]:
                self.plain = True
        found = tuple(self.inclusions)
        return LatexFile(found, self.document_class, self.begins, self.plain, frozenset(self.written))

    def _after_options(self, position: int) -> int:
        match = _OPTIONS.match(self.text, position)
        return match.end() if match else position

    def _command(self, command: str, start: int, position: int) -> int:
        wanted = 2 if command in _TWO else 1 + _VERBATIM.get(command, 0)
        arguments, end = self._arguments(self._after_options(position), wanted)
        if len(arguments) < wanted:
            if command != "input" or not (bare := _BARE.match(self.text, position)):
                return position
            arguments, end = [bare[1] or bare[2]], bare.end()
        *before, name = (self._expanded(argument) for argument in arguments)
        if command in self.macros.files:
            name = self._expanded(self.macros.files[command].replace("#1", name))
        if not name or "#" in name or name.startswith("|"):
            return position  # the text of a definition, or the output of a program
        self.inclusions.append(
            Inclusion(
                start=start,
                end=end,
                name=name,
                folder=before[0] if command in _TWO else None,
                relative=command.startswith("sub"),
                verbatim=command in _VERBATIM,
            )
        )
        return end

    def _arguments(self, position: int, wanted: int) -> tuple[list[str], int]:
        found: list[str] = []
        while len(found) < wanted and (match := _ARGUMENT.match(self.text, position)):
            found.append(match[1])
            position = match.end()
        return found, position

    def _expanded(self, argument: str) -> str:
        """Returns a file name without comments and quotes, with the paper's own macros expanded."""
        name = _cleaned(argument)
        for _ in range(5):
            name = re.sub(r"\\subfix\s*\{([^{}]*)\}", r"\1", name)
            name = re.sub(r"\\([A-Za-z@]+)\s*(?:\{\})?", self._macro, name)
        return name

    def _macro(self, match: re.Match[str]) -> str:
        return self.macros.texts.get(match[1], match[0])

    def _environment(self, name: str, position: int) -> int:
        if name == "document":
            self.begins = True
        plain = name.rstrip("*")
        if name not in self.macros.environments and plain not in self.macros.environments:
            return position
        if plain == "filecontents" and (file := _ARGUMENT.match(self.text, self._after_options(position))):
            self.written.add(_cleaned(file[1]))
        end = self.text.find(f"\\end{{{name}}}", position)
        return position if end < 0 else end

    def _after_never(self, start: int, position: int) -> int:
        """Returns the position after the branch that LaTeX never executes."""
        if self.unclosed > _MOST_UNCLOSED or _ASSIGNS.search(self.text, max(0, start - 60), start):
            return position
        depth = 1
        for match in _CONDITIONAL.finditer(self.text, position):
            if match["begin"]:
                depth += match["begin"] not in _NO_CONDITIONALS
            elif match["end"] == "fi":
                depth -= 1
            if match["end"] and depth == (0 if match["end"] == "fi" else 1):
                return match.end()
        self.unclosed += 1
        return position

    def _after_verb(self, command: str, position: int) -> int:
        position = (
            self._after_options(position) if command != "verb" else position + self.text.startswith("*", position)
        )
        if command == "mintinline" and (language := _ARGUMENT.match(self.text, position)):
            position = language.end()
        mark = self.text[position : position + 1]
        if not mark or mark.isspace() or mark.isalpha():
            return position
        line = re.compile(r"[^\r\n]*+").match(self.text, position + 1)
        end = self.text.find("}" if mark == "{" else mark, position + 1, line.end() if line else position)
        return position if end < 0 else end + 1


def scan(text: str, macros: Macros) -> LatexFile:
    """Scans a LaTeX file.

    Args:
        text: the whole file.
        macros: the definitions of the paper.

    Returns:
        Its inclusions and properties.
    """
    return _Scan(text, macros).run()


def _cleaned(argument: str) -> str:
    return " ".join(_COMMENT.sub("", argument).split()).strip('"').strip()
