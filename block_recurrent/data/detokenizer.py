"""Ids to text one at a time: the pieces of text together are the text of all ids."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class Detokenizer(Protocol):
    """A stream of text. It holds back the beginning of a character whose other bytes have not come."""

    def push(self, token: int) -> str:
        """Takes an id and returns the text that is certain now and was not before."""
        ...

    def flush(self) -> str:
        """Returns what was held back, once no more ids come."""
        ...


class Decodes(Protocol):
    """The part of a vocabulary that this needs."""

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The text of ids."""
        ...


class ByteDetokenizer:
    """For ids that are bytes.

    Args:
        first_byte: id of byte 0; lower ids and those behind byte 255 have no text.
        context: the ids before the first; a character that they leave unfinished is finished by what comes.
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
    """For ids whose text depends on the id before, such as a piece with its leading blank.

    Args:
        vocabulary: decodes ids.
        context: the ids before the first.
    """

    def __init__(self, vocabulary: Decodes, context: Sequence[int]):
        self._vocabulary = vocabulary
        self._begin_behind(list(context))

    def _begin_behind(self, ids: list[int]) -> None:
        """Keeps the last ids that have text: blanks at the very beginning of a text vanish, elsewhere they stay."""
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
        self._begin_behind(self._ids)
        return fresh

    def flush(self) -> str:
        """See `Detokenizer.flush`."""
        fresh = self._vocabulary.decode(self._ids)[len(self._shown) :]
        self._begin_behind(self._ids)
        return fresh
