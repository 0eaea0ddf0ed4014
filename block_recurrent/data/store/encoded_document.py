"""Tokenised documents with their counts, which workers create and the store's writer takes."""

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np

from block_recurrent.data.sources.source import TextDocument
from block_recurrent.data.vocabulary import Vocabulary

_CHARACTERS_PER_PIECE = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedDocument:
    """One tokenised document.

    Attributes:
        name: unique within its split.
        tokens: (n,) ids of the store's unsigned type.
        size: bytes of the text in UTF-8.
        characters: Unicode code points of the text.
        words: words of the text, separated by white space.
        unknown_tokens: number of tokens with the unknown id.
        first_token_bytes: bytes of the text that the first token covers.
        digest: sha256 of the text in UTF-8.
    """

    name: str
    tokens: np.ndarray
    size: int
    characters: int
    words: int
    unknown_tokens: int
    first_token_bytes: int
    digest: bytes


def encode_document(document: TextDocument, vocabulary: Vocabulary, dtype: np.dtype) -> EncodedDocument:
    """Tokenises and counts one document.

    Args:
        document: name and text.
        vocabulary: vocabulary of the tokens.
        dtype: unsigned type of the tokens, wide enough for the vocabulary's table.

    Returns:
        The tokenised document.
    """
    ids = vocabulary.encode(document.text)
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(document.text):
        data = piece.encode("utf-8", "replace")
        digest.update(data)
        size += len(data)
    return EncodedDocument(
        name=document.name,
        tokens=ids.astype(dtype, copy=False),
        size=size,
        characters=len(document.text),
        words=count_words(document.text),
        unknown_tokens=int(np.count_nonzero(ids == vocabulary.unknown_id)),
        first_token_bytes=vocabulary.first_token_bytes(document.text),
        digest=digest.digest(),
    )


def token_dtype(table_size: int) -> np.dtype:
    """Returns the smallest unsigned type that holds every id of a table."""
    return np.min_scalar_type(table_size - 1)


def count_words(text: str) -> int:
    """Returns the number of words, `len(text.split())`, without creating the list."""
    words, inside = 0, False
    for piece in _pieces(text):
        words += len(piece.split()) - (inside and not piece[0].isspace())
        inside = not piece[-1].isspace()
    return words


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _CHARACTERS_PER_PIECE):
        yield text[start : start + _CHARACTERS_PER_PIECE]
