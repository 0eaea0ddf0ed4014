"""The evaluation order of the official code, for comparison with its numbers; its scores are not exact."""

import heapq

import numpy as np

from block_recurrent.data.batching.schedule import RowPositions
from block_recurrent.errors import InputError


class OfficialSchedule:
    """Documents in the store's order, each assigned to the first free row; after the last one, the first again.

    A document of n tokens takes ceil(n / N) segments, the last one padded (google-research/meliad, text_dataset.py).

    Args:
        lengths: (D,) integers, tokens of each document; empty documents are skipped.
        batch_size: number of rows.
        segment_length: N, tokens of a segment.
        num_steps: number of segments that each row reads.

    Raises:
        InputError: all documents are empty.
    """

    def __init__(self, lengths: np.ndarray, *, batch_size: int, segment_length: int, num_steps: int):
        self.lengths = np.asarray(lengths, np.int64)
        self.batch_size, self.segment_length, self.num_steps = batch_size, segment_length, num_steps
        if not self.lengths.any():
            raise InputError("nothing to read: all documents are empty")
        self._document = np.empty((num_steps, batch_size), np.int64)
        self._segment = np.empty((num_steps, batch_size), np.int64)
        self._assign()

    def _assign(self) -> None:
        documents = np.flatnonzero(self.lengths)
        segments = -(-self.lengths // self.segment_length)
        free, next_document = [(0, row) for row in range(self.batch_size)], 0
        while free[0][0] < self.num_steps:
            step, row = free[0]
            document = documents[next_document % len(documents)]
            stop = min(step + int(segments[document]), self.num_steps)
            self._document[step:stop, row] = document
            self._segment[step:stop, row] = np.arange(stop - step)
            heapq.heapreplace(free, (stop, row))
            next_document += 1

    def locate(self, step: int) -> RowPositions:
        """Returns the segments that all rows read at `step`, from 0 to `num_steps` - 1."""
        segment = self._segment[step]
        return RowPositions(self._document[step], segment * self.segment_length, segment == 0)
