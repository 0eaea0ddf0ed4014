"""Input texts from the command line, files or standard input, and output as JSON lines."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from block_recurrent.cli.options import read_text
from block_recurrent.errors import InputError

STANDARD = Path("-")  # as a file name: standard input or output


def gather_texts(given: Sequence[str] | None, file: Path | None, lines: Path | None, field: str) -> list[str]:
    """Returns the texts that a command's options name.

    Args:
        given: texts from the command line.
        file: a file with one text; `-` is standard input.
        lines: a file of JSON lines, each a string or an object with a string in `field`; `-` is standard input.
        field: the key of the text in an object.

    Raises:
        InputError: a file cannot be read, or a line holds no text.
    """
    texts = list(given or [])
    if file is not None:
        texts.append(_read_standard_input() if file == STANDARD else read_text(file))
    if lines is not None:
        texts += [_text_of(line, f"{lines}, line {n}", field) for n, line in _numbered_lines(lines)]
    return texts


def _read_standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input: cannot be read as UTF-8 text: {error}") from None


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    content = _read_standard_input() if path == STANDARD else read_text(path)
    return ((n, line) for n, line in enumerate(content.split("\n"), 1) if line.strip())


def _text_of(line: str, where: str, field: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    text = value.get(field) if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise InputError(f"{where}: must be a string, or an object with a string in {field!r}")
    return text


@contextlib.contextmanager
def json_lines(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Opens a file of JSON lines, or standard output for `-`, and yields a function that writes one line.

    The file is opened at once, but its old content is kept until the first line is written.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with contextlib.nullcontext(sys.stdout) if path == STANDARD else path.open("a", encoding="utf-8") as file:
            yield _LineWriter(file, replace=path.is_file()).write
    except OSError as error:
        raise InputError(f"--jsonl {path}: cannot be written: {error.strerror}") from None


class _LineWriter:
    def __init__(self, file: TextIO, *, replace: bool):
        self._file, self._replace = file, replace

    def write(self, record: dict[str, Any]) -> None:
        if self._replace:
            self._file.truncate(0)
        self._replace = False
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()
