"""Some documents of a split, possibly only their first tokens, in place of the whole split."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from block_recurrent.data.store.token_store import TokenStore


class Excerpt:
    """The first tokens of some documents of a split.

    Attributes:
        documents: (d,) int64, indices of the documents in the store, in its order.
        lengths: (d,) int64, tokens of each.
        bytes: (d,) float64. The store does not record the sizes of parts of a document, so those of a truncated
            document are taken in proportion to its tokens after the first; they are exact for whole documents.
        characters: (d,) float64, in proportion too.
        words: (d,) float64, in proportion too.
        first_token_bytes: (d,) int32.

    Args:
        store: the split.
        documents: (d,) indices of the documents, ascending.
        tokens: (d,) largest number of tokens of each document, or one number for all.
    """

    def __init__(self, store: TokenStore, documents: np.ndarray, tokens: np.ndarray | int):
        self._store = store
        self.documents = documents
        whole = store.lengths[self.documents]
        self.lengths = np.minimum(whole, tokens)
        self.first_token_bytes = store.first_token_bytes[self.documents]
        share = np.maximum(self.lengths - 1, 0) / np.maximum(whole - 1, 1)
        after_first = store.bytes[self.documents] - self.first_token_bytes
        self.bytes = self.first_token_bytes + after_first * share
        self.characters, self.words = (column[self.documents] * share for column in (store.characters, store.words))

    @classmethod
    def longest(cls, store: TokenStore, *, documents: int, tokens: int) -> "Excerpt":
        """Returns the first tokens of a split's longest documents.

        The longest, because they hold the most text beyond a window, and because documents that are truncated to one
        length weigh the same in an interval over documents. Of documents of one length, the first are taken.

        Args:
            store: the split.
            documents: largest number of documents.
            tokens: largest number of tokens of each document.
        """
        return cls(store, np.sort(np.argsort(-store.lengths, kind="stable")[:documents]), tokens)

    def read_many(self, pieces: Iterable[tuple[int, int, int]]) -> list[np.ndarray]:
        """Returns tokens of the documents; see `TokenStore.read_many`.

        Args:
            pieces: (document, start, stop), with the document's index in the excerpt.
        """
        ends = [(int(document), start, min(stop, int(self.lengths[document]))) for document, start, stop in pieces]
        return self._store.read_many((int(self.documents[d]), start, max(start, stop)) for d, start, stop in ends)


# Documents with their sizes and tokens.
Split: TypeAlias = TokenStore | Excerpt
