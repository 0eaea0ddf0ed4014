"""Text that ends a continuation."""

from collections.abc import Sequence

from block_recurrent.errors import InputError


class StopStrings:
    """Passes a stream of text on until one of some strings appears in it.

    Text that may turn out to begin such a string is held back until that is decided.

    Args:
        strings: what ends the text; none of them lets everything pass.

    Raises:
        InputError: a string is empty.
    """

    def __init__(self, strings: Sequence[str]):
        if any(not string for string in strings):
            raise InputError("stop string: empty; give at least one character")
        self._strings = tuple(strings)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Takes more text; returns what may be shown, and whether a string has appeared (it is not shown itself)."""
        self._held += text
        found = [place for string in self._strings if (place := self._held.find(string)) >= 0]
        if found:
            return self._held[: min(found)], True
        keep = max((_overlap(self._held, string) for string in self._strings), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown, False

    def flush(self) -> str:
        """Returns what was held back, once no more text comes."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, string: str) -> int:
    """Length of the longest end of the text with which the string begins, short of all of it."""
    return next((n for n in range(min(len(text), len(string) - 1), 0, -1) if text.endswith(string[:n])), 0)
