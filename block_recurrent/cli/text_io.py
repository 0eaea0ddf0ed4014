"""Input texts from the command line, files or standard input, and output as JSON lines.

Every way follows the rules of `prepare` (`data/sources/text.py`): equal bytes give equal tokens.
"""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from block_recurrent.cli.console import line as print_line
from block_recurrent.cli.options import STDERR
from block_recurrent.data.sources.text import CARRIAGE_RETURNS, clean_text, decode_text
from block_recurrent.errors import InputError, first_line

STANDARD = Path("-")  # as a file name: standard input or output


def gather_texts(
    given: Sequence[str] | None, file: Path | None, lines: Path | None, field: str
) -> list[str | InputError]:
    """Returns the texts that a command's options name, and prints what was replaced or removed in them.

    Args:
        given: texts from the command line.
        file: a file with one text; `-` is standard input.
        lines: a file of JSON lines, each a string or an object with a string in `field`; `-` is standard input.
        field: the key of the text in an object.

    Returns:
        The texts in order. A line without a text is an error, which names the line.

    Raises:
        InputError: a file cannot be read, or no line has a text.
    """
    if file == lines == STANDARD:
        raise InputError("standard input: holds one text or JSON lines; give one of the two as a file")
    repairs: Counter[str] = Counter()
    texts: list[str | InputError] = [text_of_argument(text, repairs) for text in given or ()]
    if file is not None:
        texts.append(decode_text(_read(file), repairs))
    if lines is not None:
        texts += _texts_of_lines(lines, field, repairs)
    for reason, count in repairs.items():
        if reason != CARRIAGE_RETURNS:  # kept as they are
            print_line(STDERR, f"warning: {reason.replace('documents', 'texts')}: {count:,} of {len(texts):,}")
    return texts


def text_of_argument(argument: str, repairs: Counter[str] | None = None) -> str:
    """Returns the text of a command line argument.

    Python keeps an argument's undecodable bytes as lone surrogates; here they are bytes again.
    """
    try:
        return decode_text(argument.encode("utf-8", "surrogateescape"), repairs)
    except UnicodeEncodeError:  # surrogates that no byte becomes; only a caller in this process can pass them
        return clean_text(argument, repairs)


def _read(path: Path) -> bytes:
    name = "standard input" if path == STANDARD else str(path)
    try:
        if path != STANDARD:
            return path.read_bytes()
        if sys.stdin is None:
            raise InputError("standard input: is closed")
        return sys.stdin.buffer.read()
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from None


def _texts_of_lines(path: Path, field: str, repairs: Counter[str]) -> list[str | InputError]:
    texts: list[str | InputError] = []
    for number, line in enumerate(_read(path).split(b"\n"), 1):
        if line.strip():
            try:
                texts.append(clean_text(_text_of(decode_text(line, repairs), field), repairs))
            except InputError as error:
                texts.append(InputError(f"{path}, line {number}: {error}"))
    errors = [text for text in texts if isinstance(text, InputError)]
    if errors and len(errors) == len(texts):
        more = f" (and {len(errors) - 1:,} other lines; none has a text)" if len(errors) > 1 else ""
        raise InputError(f"{errors[0]}{more}")
    return texts


def _text_of(line: str, field: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {first_line(error)}") from None
    text = value.get(field) if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise InputError(f"must be a string, or an object with a string in {field!r}")
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
    except BrokenPipeError:  # the reader has ended
        raise
    except OSError as error:
        raise InputError(f"--jsonl {path}: cannot be written: {error.strerror}") from None


class _LineWriter:
    def __init__(self, file: TextIO, *, replace: bool):
        self._file, self._replace = file, replace

    def write(self, record: dict[str, Any]) -> None:
        if self._replace:
            self._file.truncate(0)
        self._replace = False
        self._file.write(_as_json(record, self._file.encoding) + "\n")
        self._file.flush()


def _as_json(record: dict[str, Any], encoding: str | None) -> str:
    """Returns a record as JSON; characters that the output's encoding lacks are escaped, so that nothing is lost."""
    text = json.dumps(record, ensure_ascii=False)
    try:
        if (encoding or "").lower().replace("-", "").startswith("utf"):
            text.encode("utf-8")
            return text
    except UnicodeEncodeError:
        pass
    return json.dumps(record)
