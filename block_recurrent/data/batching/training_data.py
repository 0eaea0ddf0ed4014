"""What a configuration trains on: one store or a mixture, its documents' lengths limited, and the schedule over it."""

import dataclasses
from typing import Any

import numpy as np

from block_recurrent.config import DataConfig
from block_recurrent.data.batching.batches import BatchReader
from block_recurrent.data.batching.mixture import MixtureSchedule, StoreMixture
from block_recurrent.data.batching.schedule import DocumentSchedule
from block_recurrent.data.store.open_split import open_split
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Open stores and the schedule over them.

    Attributes:
        stores: one, or those of the mixture in its order.
        schedule: which row reads what; its lengths are the limited ones.
        bytes_per_token: of the text that is read, on average over the mixture.
    """

    stores: tuple[TokenStore, ...]
    schedule: DocumentSchedule | MixtureSchedule
    bytes_per_token: float

    def reader(self, rows: slice = slice(None)) -> BatchReader:
        """Reads the batches of some of the rows.

        Args:
            rows: those of this host.

        Returns:
            The reader.
        """
        store = self.stores[0] if len(self.stores) == 1 else StoreMixture(self.stores)
        return BatchReader(store, self.schedule, segment_length=self.schedule.segment_length, rows=rows)

    def name(self, document: int) -> str:
        """A document's name; the stores of a mixture are numbered one after another."""
        for store in self.stores:
            if document < len(store):
                return store.names[document]
            document -= len(store)
        raise IndexError(document)

    @property
    def facts(self) -> dict[str, Any]:
        """JSON for the record of a run: equal facts read equal batches."""
        stores = [
            {
                "source": store.metadata.source,
                "split": store.metadata.split,
                "settings": dict(store.metadata.settings),
                "fingerprint": store.fingerprint,
                "vocabulary": dataclasses.asdict(store.vocabulary),
                "counts": dataclasses.asdict(store.metadata.counts),
            }
            for store in self.stores
        ]
        return {"stores": stores, "schedule": self.schedule.fingerprint}


def open_training(config: DataConfig, *, vocab_size: int) -> TrainingData:
    """Opens what a configuration trains on.

    Args:
        config: stores, split, weights, limits and shape.
        vocab_size: rows of the model's embedding table.

    Returns:
        The data.

    Raises:
        InputError: a store is missing or damaged, does not fit the model or the other stores, or has nothing to read
            within the limits.
    """
    folders = config.mixture or {config.store: 1.0}
    stores = tuple(
        open_split(dataclasses.replace(config, store=folder), config.train_split, vocab_size=vocab_size)
        for folder in folders
    )
    lengths = [_limited(store, config) for store in stores]
    shape = {"batch_size": config.batch_size, "segment_length": config.segment_length, "seed": config.seed}
    if config.mixture is None:
        schedule = DocumentSchedule(lengths[0], **shape)
    else:
        schedule = MixtureSchedule(lengths, list(folders.values()), **shape)
        StoreMixture(stores)  # refuses different vocabularies before anything long begins
    return TrainingData(
        stores=stores,
        schedule=schedule,
        bytes_per_token=_bytes_per_token(stores, lengths, list(folders.values())),
    )


def limit_lengths(lengths: np.ndarray, minimum: int, maximum: int | None) -> np.ndarray:
    """Lengths as the schedule sees them.

    Args:
        lengths: (D,) integers, tokens of each document.
        minimum: shorter documents are left out: their length becomes 0. One below 2 is never read anyway.
        maximum: longer documents are read up to here; None means to their end.

    Returns:
        (D,) of the same type.
    """
    kept = np.where((lengths < minimum) & (lengths > 1), 0, lengths)
    return kept if maximum is None else np.minimum(kept, maximum)


def _limited(store: TokenStore, config: DataConfig) -> np.ndarray:
    lengths = limit_lengths(store.lengths, config.min_document_tokens, config.max_document_tokens)
    if not (lengths > 1).any():
        raise InputError(
            f"{store.path}: nothing to read: no document has two tokens or more and at least "
            f"DataConfig.min_document_tokens = {config.min_document_tokens} (the longest has "
            f"{store.metadata.counts.longest_document})"
        )
    return lengths


def _bytes_per_token(stores: tuple[TokenStore, ...], lengths: list[np.ndarray], weights: list[float]) -> float:
    """A row spends `weight` of its documents in a store, and there its mean tokens and bytes."""
    tokens = np.zeros(len(stores))
    size = np.zeros(len(stores))
    for index, (store, limited) in enumerate(zip(stores, lengths, strict=True)):
        share = limited / np.maximum(store.lengths, 1)  # of a document that is cut
        tokens[index] = weights[index] * limited[limited > 1].mean()
        size[index] = weights[index] * (store.bytes * share)[limited > 1].mean()
    return float(size.sum() / tokens.sum())
