"""Streaming detokenisation: turns ids that arrive one at a time into text.

The concatenated pieces of text equal the text of all ids decoded at once.
"""

import codecs
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class Detokenizer(Protocol):
    """Turns a stream of ids into text. Holds back incomplete characters until their last byte arrives."""

    def push(self, token: int) -> str:
        """Takes one id and returns the text that has become complete, possibly none."""
        ...

    def flush(self) -> str:
        """Returns the text held back so far; called after the last id."""
        ...


class Decoder(Protocol):
    """The part of a vocabulary that a `PieceDetokenizer` needs."""

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Returns the text of ids."""
        ...


class ByteDetokenizer:
    """Detokenizer of byte ids.

    Args:
        first_byte: id of byte 0; lower ids, and ids after that of byte 255, have no text.
        context: ids before the stream; the stream completes a character that they leave incomplete.
    """

    def __init__(self, first_byte: int, context: Sequence[int]):
        self._first_byte = first_byte
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in context[-4:]:
            self.push(token)

    def push(self, token: int) -> str:
        """See `Detokenizer.push`."""
        byte = token - self._first_byte
        return self._decoder.decode(bytes([byte])) if 0 <= byte < 256 else ""

    def flush(self) -> str:
        """See `Detokenizer.flush`."""
        return self._decoder.decode(b"", final=True)


class PieceDetokenizer:
    """Detokenizer of ids whose text depends on the previous id, such as pieces with a leading blank.

    Args:
        vocabulary: decodes ids.
        context: ids before the stream.
    """

    def __init__(self, vocabulary: Decoder, context: Sequence[int]):
        self._vocabulary = vocabulary
        self._continue_after(list(context))

    def _continue_after(self, ids: list[int]) -> None:
        """Keeps the last ids that have text as context: without it, decoding would drop a leading blank."""
        for start in reversed(range(len(ids))):
            self._ids, self._shown = ids[start:], self._vocabulary.decode(ids[start:])
            if self._shown:
                return
        self._ids, self._shown = ids, ""

    def push(self, token: int) -> str:
        """See `Detokenizer.push`."""
        self._ids.append(token)
        text = self._vocabulary.decode(self._ids)
        if text.endswith(_INCOMPLETE):
            return ""
        fresh = text[len(self._shown) :]
        self._continue_after(self._ids)
        return fresh

    def flush(self) -> str:
        """See `Detokenizer.flush`."""
        fresh = self._vocabulary.decode(self._ids)[len(self._shown) :]
        self._continue_after(self._ids)
        return fresh
