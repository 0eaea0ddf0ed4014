"""Stop strings: text that ends a continuation."""

from collections.abc import Sequence

from block_recurrent.errors import InputError


class StopStrings:
    """Passes on a stream of text until a stop string appears in it.

    Text at the end of the stream that may be the beginning of a stop string is held back until more text decides.

    Args:
        strings: the stop strings; without any, all text passes.

    Raises:
        InputError: a string is empty.
    """

    def __init__(self, strings: Sequence[str]):
        if any(not string for string in strings):
            raise InputError("stop string: empty; pass at least one character")
        self._strings = tuple(strings)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Takes more text; returns the text to show and whether a stop string has appeared (it is not shown)."""
        self._held += text
        starts = {string: self._held.find(string) for string in self._strings}
        # The first string to be complete wins, so that the result does not depend on how the text is divided.
        found = [(start + len(string), start) for string, start in starts.items() if start >= 0]
        if found:
            return self._held[: min(found)[1]], True
        keep = max((_overlap(self._held, string) for string in self._strings), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown, False

    def flush(self) -> str:
        """Returns the text that was held back; call it at the end of the stream."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, string: str) -> int:
    """Returns the length of the longest proper prefix of `string` that `text` ends with."""
    return next((n for n in range(min(len(text), len(string) - 1), 0, -1) if text.endswith(string[:n])), 0)
