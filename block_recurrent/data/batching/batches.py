"""Batches: each is a pure function of store, schedule and step."""

import dataclasses
from typing import Protocol

import numpy as np

from block_recurrent.data.batching.prefetch import Prefetcher
from block_recurrent.data.batching.schedule import IDLE, RowPositions


class Schedule(Protocol):
    """Assigns a segment of a document to every row at every step; see `data/batching/schedule.py`."""

    lengths: np.ndarray
    batch_size: int
    segment_length: int

    def locate(self, step: int) -> RowPositions:
        """Returns the segments that all rows read at `step`."""
        ...


class TokenReader(Protocol):
    """Reads tokens of documents; see `TokenStore`."""

    def read_many(self, pieces: list[tuple[int, int, int]]) -> list[np.ndarray]:
        """Returns the tokens of pieces (document, start, stop)."""
        ...


@dataclasses.dataclass(frozen=True)
class Batch:
    """One segment of each of b rows, or K consecutive ones: then every array has a second axis of size K.

    Attributes:
        tokens: (b, N) int32, the model's input.
        targets: (b, N) int32, the next token of each, also across segment boundaries.
        weights: (b, N) float32, 1 where the target is a token of the document, 0 on padding and idle rows.
        start_of_document: (b,) bool, True where the row's state must be reset, and on idle rows.
        document: (b,) int64, index of the document; -1 on idle rows.
        offset: (b,) int64, position of the first token in its document.
    """

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    start_of_document: np.ndarray
    document: np.ndarray
    offset: np.ndarray


class BatchReader:
    """Reads the batches of a schedule.

    Args:
        store: the tokens.
        schedule: the segment of every row at every step.
        segment_length: N, equal to the schedule's.
        rows: this host's rows of the schedule's batch.
    """

    def __init__(self, store: TokenReader, schedule: Schedule, *, segment_length: int, rows: slice = slice(None)):
        if segment_length != schedule.segment_length:
            raise ValueError(f"segment_length = {segment_length}, but the schedule's is {schedule.segment_length}")
        self._store = store
        self._schedule = schedule
        self._segment_length = segment_length
        self._rows = rows

    def read(self, step: int) -> Batch:
        """Reads the batch of a step.

        Args:
            step: step, from 0.

        Returns:
            This host's rows of the batch.

        Raises:
            InputError: the store is damaged.
        """
        located = self._schedule.locate(step)
        document, offset = located.document[self._rows], located.offset[self._rows]
        busy = np.flatnonzero(document != IDLE)
        # The schedule's lengths, not the store's: the schedule may truncate long documents.
        stops = np.minimum(offset + self._segment_length + 1, self._schedule.lengths[document])
        pieces = [(int(document[row]), int(offset[row]), int(stops[row])) for row in busy]
        shape = (len(document), self._segment_length)
        tokens, targets, weights = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for row, piece in zip(busy, self._store.read_many(pieces), strict=True):
            scored = len(piece) - 1
            tokens[row, :scored] = piece[:-1]
            targets[row, :scored] = piece[1:]
            weights[row, :scored] = 1
        return Batch(tokens, targets, weights, located.start_of_document[self._rows], document, offset)

    def prefetch(self, start: int, stop: int, depth: int = 2) -> Prefetcher[Batch]:
        """Returns the batches of steps start, ..., stop - 1, read ahead in a background thread.

        Args:
            start: first step.
            stop: one past the last step.
            depth: maximum number of batches in the queue.

        Returns:
            An iterator and context manager; leaving the context ends the thread.
        """
        return Prefetcher(map(self.read, range(start, stop)), depth)


def read_step(reader: BatchReader, step: int, segments: int = 1) -> Batch:
    """Reads the batch of a training step that takes several segments of each row.

    Args:
        reader: the schedule's batches.
        step: training step, from 0.
        segments: K, segments of each row in a training step.

    Returns:
        The segments K * step, ..., K * step + K - 1 of each row, on a second axis of every array. With K = 1 there is
        no such axis.

    Raises:
        InputError: the store is damaged.
    """
    if segments == 1:
        return reader.read(step)
    read = [reader.read(step * segments + number) for number in range(segments)]
    names = [field.name for field in dataclasses.fields(Batch)]
    return Batch(**{name: np.stack([getattr(batch, name) for batch in read], axis=1) for name in names})
