"""Training data of a configuration: one store or a mixture, limits on document lengths, and the schedule."""

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
        stores: one store, or the mixture's stores in order.
        schedule: the segment of every row at every step, with limited document lengths.
        bytes_per_token: mean bytes of text per token that training reads, over the mixture.
    """

    stores: tuple[TokenStore, ...]
    schedule: DocumentSchedule | MixtureSchedule
    bytes_per_token: float

    def reader(self, rows: slice = slice(None)) -> BatchReader:
        """Returns a reader of the batches.

        Args:
            rows: this host's rows.

        Returns:
            The reader.
        """
        store = self.stores[0] if len(self.stores) == 1 else StoreMixture(self.stores)
        return BatchReader(store, self.schedule, segment_length=self.schedule.segment_length, rows=rows)

    def name(self, document: int) -> str:
        """Returns a document's name; documents of a mixture are numbered store after store."""
        for store in self.stores:
            if document < len(store):
                return store.names[document]
            document -= len(store)
        raise IndexError(document)

    @property
    def facts(self) -> dict[str, Any]:
        """JSON for the run record: equal facts mean equal batches; names of corpora may differ."""
        stores = [
            {
                "corpus": store.metadata.name,
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
    """Opens the training data of a configuration.

    Args:
        config: stores, split, weights, limits and batch shape.
        vocab_size: rows of the model's embedding table.

    Returns:
        The stores and the schedule.

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
        StoreMixture(stores)  # refuses different vocabularies before anything expensive starts
    return TrainingData(
        stores=stores,
        schedule=schedule,
        bytes_per_token=_bytes_per_token(stores, lengths, list(folders.values())),
    )


def limit_lengths(lengths: np.ndarray, minimum: int, maximum: int | None) -> np.ndarray:
    """Applies the limits on document lengths.

    Args:
        lengths: (D,) integers, tokens of each document.
        minimum: the length of shorter documents becomes 0, which leaves them out. Lengths below 2 stay as they are:
            such documents are never read.
        maximum: longer documents are truncated to this length; None means no truncation.

    Returns:
        (D,) limited lengths of the same type.
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
    """Weights each store's mean tokens and mean bytes per document by the store's share of documents."""
    tokens = np.zeros(len(stores))
    size = np.zeros(len(stores))
    for index, (store, limited) in enumerate(zip(stores, lengths, strict=True)):
        share = limited / np.maximum(store.lengths, 1)  # share of a document that is read
        tokens[index] = weights[index] * limited[limited > 1].mean()
        size[index] = weights[index] * (store.bytes * share)[limited > 1].mean()
    return float(size.sum() / tokens.sum())
