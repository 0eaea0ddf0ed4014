"""The titles of PG19's books: lines `<id>,<title>,<year>,<url>` of `metadata.csv`."""

import csv
import dataclasses
import io
import re
from collections.abc import Sequence

COLUMNS = ("id", "title", "year", "url")
LONGEST_TITLE = 1000
_MOST_LINES = 20  # of one title
_BEGINS_BOOK = re.compile(r'"?\d+"?,')
_ID = re.compile(r'\s*"?([^\s,"]+)"?\s*(?:,|$)')
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u2028\u2029]")


@dataclasses.dataclass(frozen=True)
class BookTitles:
    """The content of a `metadata.csv`.

    Attributes:
        titles: title by id.
        broken: for each broken line, the text before its first comma: an id, or anything else.
    """

    titles: dict[str, str]
    broken: list[str]


def read_titles(data: bytes) -> BookTitles:
    """Reads a `metadata.csv`.

    A line is broken if it does not have four columns, if its quotes do not match, if its title is longer than 1,000
    characters or has control characters, or if its id has occurred. Only that line is lost. A quoted title may contain
    line ends. A first line with names of columns and empty lines are skipped.

    Args:
        data: the file. Undecodable bytes become U+FFFD.

    Returns:
        The titles and the broken lines.
    """
    lines = re.split(r"\r\n|\n|\r", data.decode("utf-8-sig", "replace"))
    titles: dict[str, str] = {}
    broken: list[str] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        fields, count = _fields_at(lines, position)
        if fields is not None and fields[0] not in titles:
            if position or fields[0].isdigit():
                titles[fields[0]] = re.sub(r"[\t\n\v\f]+", " ", fields[1])
        elif line.strip():
            found = _ID.match(line[:1000])
            broken.append(found[1] if found else "")
        position += count
    return BookTitles(titles, broken)


def _fields_at(lines: Sequence[str], position: int) -> tuple[list[str] | None, int]:
    """Returns the fields of the book at a line and their number of lines; None and 1 if the line is broken."""
    text = lines[position]
    for count in range(1, _MOST_LINES + 1):
        fields = _fields(text)
        if fields is not None:
            return fields, count
        following = position + count
        ended = following >= len(lines) or _BEGINS_BOOK.match(lines[following])
        if ended or text.count('"') % 2 == 0:  # the line is not inside a quotation
            break
        text += "\n" + lines[following]
    return None, 1


def _fields(text: str) -> list[str] | None:
    if _CONTROL.search(text) or len(text) > 20 * LONGEST_TITLE:
        return None
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error:
        return None
    fields = [field.strip() for field in rows[0]] if len(rows) == 1 else []
    whole = len(fields) == len(COLUMNS) and fields[0] and not re.search(r"\s", fields[0])
    return fields if whole and len(fields[1]) <= LONGEST_TITLE else None
