"""Messages about statements of experiment files that gin cannot parse or resolve: place, parameter and remedy."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BINDING = re.compile(r"^\s*(?P<name>[\w./]+)\s*=(?P<value>.*)$")
_LOCATION = re.compile(r'\s+In (?:file "(?P<file>[^"]*)", line|bindings string line) (?P<line>\d+)\s+(?P<text>[^\n]*)')
_NO_LITERAL = re.compile(r"^[\w./:~\\-]+$")  # a word or a path, as people write text without quotes


def unreadable(content: str, line: int | None, reason: str) -> str:
    """Returns the message about a statement that cannot be parsed.

    Args:
        content: the whole file or parameter.
        line: number of the line, from 1; None if it is unknown.
        reason: gin's message.

    Returns:
        The parameter with its value and the remedy, without the place.
    """
    lines = content.splitlines()
    statement = lines[line - 1] if line is not None and 0 < line <= len(lines) else content
    binding = _BINDING.match(statement)
    if binding is None:
        text = statement.strip()
        return f"{text}: must be NAME = VALUE, include 'FILE' or an import" if text else f"gin: {_one_line(reason)}"
    name, value = binding["name"], binding["value"].strip()
    return f"{name} = {value}: {_remedy(name, value)}"


def _remedy(name: str, value: str) -> str:
    if not value:
        return "a value is missing"
    if _NO_LITERAL.match(value):
        constant = {"true": "True", "false": "False", "none": "None", "null": "None"}.get(value.lower())
        if constant:
            return f"must be {constant}"
        if value.lower() in ("nan", "inf"):
            return "must be a number"
        if not value[0].isdigit():
            return f"text needs quotes: {name} = '{value}'"
    if value[0] in "'\"" and (len(value) == 1 or value[-1] != value[0]):
        return f"the closing quote {value[0]} is missing"
    if any(value.count(opening) != value.count(closing) for opening, closing in ("()", "[]", "{}")):
        return "a bracket is not closed"
    return "must be a number, True, False, None, text in quotes, or a tuple of these"


def unresolved(error: Exception) -> tuple[str | None, str]:
    """Returns the place in a file and the message of an error that gin raised.

    Returns:
        FILE:LINE, or None if the statement is not in a file; and the statement with the reason.
    """
    text = str(error)
    location = _LOCATION.search(text)
    reason = _one_line(text[: location.start()] if location else text)
    if location is None:
        return None, reason
    place = f"{location['file']}:{location['line']}" if location["file"] else None
    if isinstance(error, ImportError):
        reason += "; install it, or correct the import"
    return place, f"{location['text'].strip()}: {reason}"


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def no_such_class(class_name: str, classes: Mapping[str, Any]) -> str:
    """Returns the message about a class that does not exist."""
    close = difflib.get_close_matches(class_name, classes, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(classes))}"
    return f"no such class {class_name}; {hint}"


def texts_in(value: Any) -> Iterator[str]:
    """Yields the texts in a value and in its lists, tuples and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts_in(key)
            yield from texts_in(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from texts_in(item)
