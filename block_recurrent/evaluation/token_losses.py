"""Token losses of a split: the input of all studies."""

import dataclasses

import numpy as np

FIRST_EDGE = 16  # the first bin holds all positions below; documents have few tokens there


@dataclasses.dataclass(frozen=True)
class TokenLosses:
    """Losses of all scored tokens in nats, document after document in the store's order.

    Attributes:
        values: (P,) float32, possibly a memory-mapped file.
        starts: (D + 1,) int64; document d has values[starts[d] : starts[d + 1]], for its positions 1, 2, ...
    """

    values: np.ndarray
    starts: np.ndarray

    def of(self, document: int) -> np.ndarray:
        """Returns the losses of one document's tokens, from its second token on."""
        return self.values[self.starts[document] : self.starts[document + 1]]

    @property
    def counts(self) -> np.ndarray:
        """Scored tokens of each document, (D,) int64."""
        return np.diff(self.starts)

    def sums(self) -> np.ndarray:
        """Returns the total loss of each document, (D,) float64."""
        return np.array([self.of(d).sum(dtype=np.float64) for d in range(len(self.starts) - 1)])

    def sums_by_bin(self, bin_of: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the total loss and the number of tokens of each document in each bin.

        Args:
            bin_of: (Q,) integers; entry p - 1 is the bin of position p. Repeated for longer documents.
            num_bins: number of bins K.

        Returns:
            Total losses, (D, K) float64, and token counts, (D, K) int64.
        """
        sums = np.zeros((len(self.starts) - 1, num_bins))
        counts = np.zeros(sums.shape, np.int64)
        for document, length in enumerate(self.counts):
            bins = bin_of[:length] if length <= len(bin_of) else np.resize(bin_of, length)
            sums[document] = np.bincount(bins, weights=self.of(document), minlength=num_bins)
            counts[document] = np.bincount(bins, minlength=num_bins)
        return sums, counts


def scored_starts(lengths: np.ndarray) -> np.ndarray:
    """Returns `TokenLosses.starts` for documents of these lengths."""
    return np.concatenate([[0], np.cumsum(np.maximum(lengths - 1, 0))]).astype(np.int64)


def doubling_edges(largest: int) -> np.ndarray:
    """Returns edges of bins over the positions 1 to `largest`: 1, 16, 32, 64, ..., `largest` + 1."""
    edges, edge = [1], FIRST_EDGE
    while edge <= largest:
        edges.append(edge)
        edge *= 2
    return np.array([*edges, largest + 1])
