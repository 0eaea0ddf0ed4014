"""A part of a split for a quick evaluation: some documents drawn at random, read like a whole store."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable

import numpy as np

from block_recurrent.data.store.columns import Names
from block_recurrent.data.store.excerpt import Excerpt
from block_recurrent.data.store.metadata import StoreMetadata
from block_recurrent.data.store.token_store import TokenStore


class PartialStore(TokenStore):
    """Some documents of a split, as a store of their own; `partial_store` draws them.

    Its fingerprint differs from that of the whole split, so results of the two are never mixed up. The sizes of a
    truncated document are those of `Excerpt`.

    Args:
        whole: the split.
        excerpt: the documents and their lengths.
        part: the part of the split, in words.
    """

    def __init__(self, whole: TokenStore, excerpt: Excerpt, part: str):
        self._whole, self._excerpt = whole, excerpt
        self.path, self.part = whole.path, part
        self.metadata = self._described(whole.metadata)

    def _described(self, whole: StoreMetadata) -> StoreMetadata:
        chosen = self._excerpt
        counts = dataclasses.replace(
            whole.counts,
            documents=len(chosen.documents),
            tokens=int(chosen.lengths.sum()),
            bytes=round(float(chosen.bytes.sum())),
            characters=round(float(chosen.characters.sum())),
            words=max(1, round(float(chosen.words.sum()))),
            longest_document=int(chosen.lengths.max()),
            median_document=float(np.median(chosen.lengths)),
        )
        digest = hashlib.sha256(whole.fingerprint.encode())
        digest.update(chosen.documents.astype("<i8").tobytes() + chosen.lengths.astype("<i8").tobytes())
        return dataclasses.replace(whole, counts=counts, content_fingerprint=digest.hexdigest())

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """(d,) int64, tokens of each document."""
        return self._excerpt.lengths

    @functools.cached_property
    def bytes(self) -> np.ndarray:
        """(d,) float64, bytes of each document's text in UTF-8."""
        return self._excerpt.bytes

    @functools.cached_property
    def characters(self) -> np.ndarray:
        """(d,) float64, Unicode code points of each document's text."""
        return self._excerpt.characters

    @functools.cached_property
    def words(self) -> np.ndarray:
        """(d,) float64, words of each document's text."""
        return self._excerpt.words

    @functools.cached_property
    def unknown_tokens(self) -> np.ndarray:
        """(d,) int64, unknown tokens of each whole document."""
        return self._whole.unknown_tokens[self._excerpt.documents]

    @functools.cached_property
    def first_token_bytes(self) -> np.ndarray:
        """(d,) int32, bytes of text covered by each document's first token."""
        return self._excerpt.first_token_bytes

    @functools.cached_property
    def names(self) -> Names:
        """The documents' names."""
        names = [self._whole.names[int(document)].encode() for document in self._excerpt.documents]
        return Names(b"".join(names), np.cumsum([len(name) for name in names]))

    def read_many(self, pieces: Iterable[tuple[int, int, int]]) -> list[np.ndarray]:
        """Reads pieces of documents; see `TokenStore.read_many`."""
        return self._excerpt.read_many(pieces)

    def verify(self, progress=None) -> None:
        """Verifies the whole store."""
        self._whole.verify(progress)


def partial_store(store: TokenStore, *, documents: int | None, tokens: int | None, seed: int) -> TokenStore:
    """Draws documents at random, without replacement, until a limit is reached.

    Args:
        store: the split.
        documents: largest number of documents, at least 1; None for no limit.
        tokens: largest number, at least 1, of scored tokens (all of a document except the first); the last document is
            truncated. None for no limit.
        seed: seed of the draw; one seed draws the same documents for every model.

    Returns:
        The part, or `store` itself if the limits are not below its size.
    """
    long_enough = np.flatnonzero(store.lengths > 1)
    order = np.argsort(np.random.Philox(key=seed).random_raw(len(long_enough)), kind="stable")
    drawn = long_enough[order][:documents]
    scored = store.lengths[drawn] - 1
    if (documents is None or documents >= len(long_enough)) and (tokens is None or tokens >= scored.sum()):
        return store
    if tokens is not None:
        before = np.cumsum(scored) - scored
        drawn, scored = drawn[before < tokens], np.minimum(scored, tokens - before)[before < tokens]
    place = np.argsort(drawn)
    part = (
        f"{len(drawn):,} of {len(long_enough):,} documents, drawn with seed {seed}; {int(scored.sum()):,} scored tokens"
    )
    return PartialStore(store, Excerpt(store, drawn[place], scored[place] + 1), part)
