"""The cross-entropy of every scored token of a split: what all studies are made of."""

import dataclasses

import numpy as np

FIRST_EDGE = 16  # the first bin takes all positions below: too few tokens a document to tell them apart


@dataclasses.dataclass(frozen=True)
class TokenLosses:
    """Nats of all scored tokens, document after document in the store's order.

    Attributes:
        values: (P,) float32, possibly a memory map.
        starts: (D + 1,) int64: document d has values[starts[d] : starts[d + 1]], of its positions 1, 2, ...
    """

    values: np.ndarray
    starts: np.ndarray

    def of(self, document: int) -> np.ndarray:
        """The losses of one document's tokens, from its second."""
        return self.values[self.starts[document] : self.starts[document + 1]]

    @property
    def counts(self) -> np.ndarray:
        """(D,) int64, scored tokens of each document."""
        return np.diff(self.starts)

    def sums(self) -> np.ndarray:
        """(D,) float64, total losses of each document."""
        return np.array([self.of(d).sum(dtype=np.float64) for d in range(len(self.starts) - 1)])

    def sums_by_bin(self, bin_of: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
        """Total losses and numbers of each document's tokens in each bin.

        Args:
            bin_of: (Q,) integers, the bin of a token's position - 1, repeated when a document is longer.
            num_bins: K.

        Returns:
            (D, K) float64 and (D, K) int64.
        """
        sums = np.zeros((len(self.starts) - 1, num_bins))
        counts = np.zeros(sums.shape, np.int64)
        for document, length in enumerate(self.counts):
            bins = bin_of[:length] if length <= len(bin_of) else np.resize(bin_of, length)
            sums[document] = np.bincount(bins, weights=self.of(document), minlength=num_bins)
            counts[document] = np.bincount(bins, minlength=num_bins)
        return sums, counts


def scored_starts(lengths: np.ndarray) -> np.ndarray:
    """`TokenNats.starts` of documents of these lengths."""
    return np.concatenate([[0], np.cumsum(np.maximum(lengths - 1, 0))]).astype(np.int64)


def doubling_edges(largest: int) -> np.ndarray:
    """Edges of bins over the positions 1 to `largest`: 1, 16, 32, 64, ..., `largest` + 1."""
    edges, edge = [1], FIRST_EDGE
    while edge <= largest:
        edges.append(edge)
        edge *= 2
    return np.array([*edges, largest + 1])
