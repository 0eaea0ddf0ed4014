"""Training on a mixture of stores: the store of a row's next document is chosen at random by weight."""

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np

from block_recurrent.data.batching.schedule import RowSchedule, num_segments
from block_recurrent.data.batching.shuffle import ShuffledEpochs, generator_key
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError

_VERSION = b"block_recurrent mixture schedule 1"
_STORE_CHOICES = 2**63  # number of the random stream that chooses stores; the stores' own streams count from 0
_WORDS_PER_COUNTER = 4


class StoreMixture:
    """Several stores under one numbering of documents, store after store.

    Args:
        stores: at least one store.

    Raises:
        InputError: two stores have different vocabularies.
    """

    def __init__(self, stores: Sequence[TokenStore]):
        self.stores = tuple(stores)
        for store in self.stores[1:]:
            check_same_vocabulary(self.stores[0], store)
        sizes = [len(store) for store in self.stores]
        self._firsts = np.cumsum([0, *sizes])
        self.lengths = np.concatenate([store.lengths for store in self.stores])

    def place(self, document: int) -> tuple[int, int]:
        """Returns the index of a document's store and the document's index in that store."""
        store = int(np.searchsorted(self._firsts, document, side="right")) - 1
        return store, document - int(self._firsts[store])

    def read_many(self, pieces: Iterable[tuple[int, int, int]]) -> list[np.ndarray]:
        """See `TokenStore.read_many`."""
        pieces = list(pieces)
        found: list[np.ndarray | None] = [None] * len(pieces)
        wanted: dict[int, list[tuple[int, tuple[int, int, int]]]] = {}
        for index, (document, start, stop) in enumerate(pieces):
            store, inside = self.place(document)
            wanted.setdefault(store, []).append((index, (inside, start, stop)))
        for store, entries in wanted.items():
            for (index, _), tokens in zip(entries, self.stores[store].read_many(e for _, e in entries), strict=True):
                found[index] = tokens
        return [tokens for tokens in found if tokens is not None]


class MixtureSchedule(RowSchedule):
    """The training schedule over several stores.

    The store of a row's k-th document is chosen by weight, as a pure function of (seed, row, k). Each store has its own
    `ShuffledEpochs`, assigned to rows as in `DocumentSchedule`: row r's j-th document from a store is at position
    r + j * B. Documents are numbered as in `StoreMixture`.

    Args:
        lengths: for each store (D_m,) integers, tokens of each document.
        weights: for each store, how often a row's next document comes from it, in documents, not tokens. Any positive
            scale.
        batch_size: B, rows over all hosts.
        segment_length: N, tokens of a segment.
        seed: seed of the document order and of the choice of stores.

    Raises:
        InputError: a store has nothing to read, or a weight is not positive.
    """

    def __init__(
        self,
        lengths: Sequence[np.ndarray],
        weights: Sequence[float],
        *,
        batch_size: int,
        segment_length: int,
        seed: int,
    ):
        if not lengths or len(lengths) != len(weights):
            raise InputError(f"mixture of {len(lengths)} stores with {len(weights)} weights: each needs one")
        for weight in weights:
            if not (math.isfinite(weight) and weight > 0):
                raise InputError(f"mixture weight {weight!r}: must be a positive number")
        super().__init__(np.concatenate(lengths), batch_size=batch_size, segment_length=segment_length)
        self.seed = seed
        self.weights = tuple(float(weight) for weight in weights)
        self._bounds = np.cumsum(self.weights)[:-1] / sum(self.weights)
        self._sizes = [len(part) for part in lengths]
        firsts = np.cumsum([0, *self._sizes])
        self._usable = [
            first + np.flatnonzero(num_segments(part, segment_length))
            for first, part in zip(firsts, lengths, strict=False)
        ]
        self._orders = [ShuffledEpochs(len(part), seed, number) for number, part in enumerate(self._usable)]
        self._taken = {0: np.zeros((batch_size, len(lengths)), np.int64)}

    def store_choices(self, start: int, stop: int) -> np.ndarray:
        """Returns the stores of every row's start-th, ..., (stop - 1)-th documents: (B, stop - start) int64."""
        first, last = start * self.batch_size, stop * self.batch_size
        counter, skipped = divmod(first, _WORDS_PER_COUNTER)
        generator = np.random.Philox(key=generator_key(self.seed, _STORE_CHOICES), counter=counter)
        words = generator.random_raw(skipped + last - first)[skipped:]
        shares = (words >> np.uint64(11)) * 2.0**-53
        return np.searchsorted(self._bounds, shares, side="right").reshape(-1, self.batch_size).T

    def assign(self, start: int, stop: int) -> np.ndarray:
        """See `RowSchedule.assign`. Tables must be assigned in order, as `RowSchedule` does."""
        stores = self.store_choices(start, stop)
        taken = self._taken[start].copy()
        documents = np.empty_like(stores)
        for store, order in enumerate(self._orders):
            here = stores == store
            earlier = np.cumsum(here, axis=1) - here  # documents of the same row and store, within this table
            turn = taken[:, store, None] + earlier
            positions = (np.arange(self.batch_size)[:, None] + turn * self.batch_size)[here]
            if len(positions):
                low, high = int(positions.min()), int(positions.max())
                documents[here] = self._usable[store][order.read(low, high + 1)[positions - low]]
            taken[:, store] += here.sum(axis=1)
        self._taken[stop] = taken
        return documents

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of everything that determines `locate`."""
        numbers = np.array([self.batch_size, self.segment_length, self.seed, *self._sizes], "<u8")
        digest = hashlib.sha256(_VERSION + numbers.tobytes() + self.lengths.astype("<i8").tobytes())
        digest.update(np.array(self.weights, "<f8").tobytes())
        return digest.hexdigest()


def check_same_vocabulary(first: TokenStore, second: TokenStore) -> None:
    """Raises an InputError that names both stores if their vocabularies differ."""
    ours, theirs = first.vocabulary, second.vocabulary
    if ours.fingerprint != theirs.fingerprint:
        raise InputError(
            f"token stores {first.path} and {second.path} have different vocabularies: {ours.spec!r} with fingerprint "
            f"{ours.fingerprint} and {theirs.spec!r} with {theirs.fingerprint}"
        )
