"""The shuffled order of documents: permutation(seed, epoch 0), permutation(seed, epoch 1), and so on."""

import collections

import numpy as np

from block_recurrent.errors import InputError

# Philox yields four 64-bit words per counter. Each epoch owns a block of counters, and consecutive epochs own
# consecutive blocks, so many short epochs (a tiny corpus read a million times) need a single vectorised call.
_WORDS_PER_COUNTER = 4
_CACHED_EPOCHS = 3


class ShuffledEpochs:
    """An endless sequence of shuffled epochs, a pure function of the seed.

    Each epoch holds every document once, in the order of an argsort of raw Philox bits: numpy guarantees those bits
    across versions, but not `Generator.permutation`.

    Args:
        num_documents: D, documents per epoch.
        seed: key of the generator.
        number: distinguishes several orders with the same seed.

    Raises:
        InputError: there is no document, or the seed does not fit 64 bits.
    """

    def __init__(self, num_documents: int, seed: int, number: int = 0):
        if num_documents < 1:
            raise InputError("nothing to read: no document has the two tokens that one prediction needs")
        self._num_documents = num_documents
        self._key = generator_key(seed, number)
        self._counters = -(-num_documents // _WORDS_PER_COUNTER)
        self._cache: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns the documents at positions start, ..., stop - 1.

        Args:
            start: first position, at least 0.
            stop: one past the last position.

        Returns:
            (stop - start,) int64, indices from 0 to D - 1.
        """
        first, last = start // self._num_documents, -(-stop // self._num_documents)
        inside = start - first * self._num_documents
        return self._permutations(first, last)[inside : inside + stop - start]

    def _permutations(self, first: int, last: int) -> np.ndarray:
        if last - first > _CACHED_EPOCHS:  # short epochs: one call for all is cheaper than a cache
            return _permutations(self._key, self._num_documents, self._counters, first, last).reshape(-1)
        return np.concatenate([self._permutation(epoch) for epoch in range(first, last)] or [np.empty(0, np.int64)])

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._cache:
            drawn = _permutations(self._key, self._num_documents, self._counters, epoch, epoch + 1)
            self._cache[epoch] = drawn.reshape(-1)
            if len(self._cache) > _CACHED_EPOCHS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(epoch)
        return self._cache[epoch]


def generator_key(seed: int, number: int) -> int:
    """Returns the Philox key of one of several independent streams with the same seed: 64 bits of each number."""
    if not 0 <= seed < 2**64:
        raise InputError(f"seed = {seed}: must be from 0 to 2**64 - 1")
    return seed | number << 64


def _permutations(key: int, num_documents: int, counters: int, first: int, last: int) -> np.ndarray:
    """Returns the permutations of epochs first, ..., last - 1: (epochs, D) int64."""
    words = counters * _WORDS_PER_COUNTER
    bits = np.random.Philox(key=key, counter=first * counters).random_raw((last - first) * words)
    draws = bits.reshape(last - first, words)[:, :num_documents]
    order = np.argsort(draws, axis=1)
    # The unstable sort is three times as fast, and returns the stable sort's order unless two numbers are equal.
    ordered = np.take_along_axis(draws, order, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        return np.argsort(draws, axis=1, kind="stable")
    return order
