"""The commands and Python snippets of the documentation, page by page, in the order in which a reader pastes them."""

import dataclasses
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# README first: later pages use the run that its commands train.
PAGES = ("README.md", *(p.relative_to(ROOT).as_posix() for p in sorted(ROOT.glob("docs/**/*.md"))), "gin/README.md")
PAGES += tuple(path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("experiments/*/README.md")))
ACTIVATE = "source .venv/bin/activate"
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_SHELL = ("sh", "bash", "shell", "console")
_COMMENT = re.compile(r"(^|\s)#\s.*$", re.MULTILINE)
# Blocks of other languages that commands of the same page read as files.
FILES = {"gin": "mine.gin", "toml": "card.toml"}


@dataclasses.dataclass(frozen=True)
class Command:
    """A shell command, a Python snippet, or the content of a file that a command reads.

    Attributes:
        page: path of the page.
        line: line of the page.
        kind: `shell`, `options` (lines that begin with `--`), `python`, or a key of `FILES`.
        text: as on the page.
    """

    page: str
    line: int
    kind: str
    text: str

    @property
    def normal(self) -> str:
        """The text in one line, without comments and continuations; the list of exceptions names it so."""
        return normal(self.text)

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def normal(text: str) -> str:
    return " ".join(_COMMENT.sub("", text).replace("\\\n", " ").split())


def commands_of(page: str) -> Iterator[Command]:
    """Yields the commands of a page, and `source .venv/bin/activate` first where its prose says so."""
    text = (ROOT / page).read_text()
    blocks = list(_BLOCK.finditer(text))
    before = text[: blocks[0].start()] if blocks else ""
    if f"`{ACTIVATE}`" in before:
        yield Command(page, text[: text.index(ACTIVATE)].count("\n") + 1, "shell", ACTIVATE)
    for block in blocks:
        line, language = text[: block.start(3)].count("\n") + 1, block[2]
        if language == "python":
            yield Command(page, line, "gin" if "from __gin__" in block[3] else "python", block[3])
        elif language in FILES:
            yield Command(page, line, language, block[3])
        elif language in _SHELL:
            for number, command in split_block(block[3]):
                kind = "options" if command.startswith("--") else "shell"
                yield Command(page, line + number, kind, command)


def split_block(block: str) -> Iterator[tuple[int, str]]:
    """Yields the complete commands of a shell block with the numbers of their first lines, from 0."""
    first, pending = 0, ""
    for number, line in enumerate(block.splitlines()):
        if not pending:
            if not normal(line):
                continue
            first = number
        pending += line + "\n"
        if not line.endswith("\\") and is_complete(pending):
            yield first, pending.rstrip("\n")
            pending = ""
    assert not pending, f"not a complete command: {pending}"


def is_complete(text: str) -> bool:
    """Returns whether a shell can run a text; a loop or a quoted text may continue in the next line."""
    if not re.search(r"['\"(]|\b(while|for|if|do)\b|<<|\\\n", text):
        return True  # the answer of bash, without starting one
    return subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True).returncode == 0


def inline_commands(page: str) -> Iterator[Command]:
    """Yields commands inside the prose, such as `make bench`; they are checked, but not run."""
    text = _BLOCK.sub(lambda block: "\n" * block[0].count("\n"), (ROOT / page).read_text())
    for found in re.finditer(r"`((?:\w+=\S+ )?(?:make|python -m|block-recurrent) [^`]+)`", text):
        yield Command(page, text[: found.start()].count("\n") + 1, "shell", found[1].replace(r"\|", "|"))
