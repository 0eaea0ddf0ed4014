"""Schedules: pure functions from a step to the segment that every row reads.

A document of n tokens has n - 1 predictions and is read in ceil((n - 1) / N) segments of N tokens. Each row reads one
document at a time, segment after segment, then its next document.
"""

import abc
import collections
import dataclasses
import hashlib
import heapq
import threading
from collections.abc import Sequence

import numpy as np

from block_recurrent.data.batching.shuffle import ShuffledEpochs
from block_recurrent.errors import InputError

IDLE = -1
_VERSION = b"block_recurrent document schedule 1"
_POSITIONS_PER_TABLE = 1 << 16
_CACHED_TABLES = 4


def num_segments(lengths: np.ndarray | Sequence[int] | int, segment_length: int) -> np.ndarray:
    """Returns the number of segments of documents: ceil((n - 1) / N), and 0 for a document without a prediction.

    Args:
        lengths: tokens n of each document, any shape.
        segment_length: N, tokens of a segment.

    Returns:
        int64 array of the same shape.
    """
    predictions = np.maximum(np.asarray(lengths, np.int64) - 1, 0)
    return -(-predictions // segment_length)


@dataclasses.dataclass(frozen=True)
class RowPositions:
    """The segments that all B rows read at one step.

    Attributes:
        document: (B,) int64, index into the schedule's lengths; -1 on idle rows.
        offset: (B,) int64, position of the segment's first token in its document.
        start_of_document: (B,) bool, True where the row's state must be reset, and on idle rows.
    """

    document: np.ndarray
    offset: np.ndarray
    start_of_document: np.ndarray


class _Table:
    """K consecutive documents of every row, searchable by step.

    Steps count from the row's first document in the table.

    Args:
        documents: (B, K) int64, each row's documents in reading order.
        segments: (B, K) int64, number of segments of each.
    """

    def __init__(self, documents: np.ndarray, segments: np.ndarray):
        self._documents = documents
        ends = np.cumsum(segments, axis=1)
        self.totals = ends[:, -1]
        # Row r's ends are shifted by r * span, which makes one sorted array: a single search serves all rows.
        self._span = int(self.totals.max(initial=0)) + 1
        self._ends = (ends + np.arange(len(ends))[:, None] * self._span).reshape(-1)
        self._segments = segments

    def find(self, rows: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns documents and segment indices of `rows` at `steps`; each step is below the row's total."""
        wanted = rows * self._span + steps
        flat = np.searchsorted(self._ends, wanted, side="right")
        segment = wanted - self._ends[flat] + self._segments.reshape(-1)[flat]
        return self._documents.reshape(-1)[flat], segment


class RowSchedule(abc.ABC):
    """A schedule whose rows read an endless sequence of documents. Subclasses define each row's k-th document.

    Tables of consecutive documents are created on demand, and only the most recently used ones are kept. The step at
    which each row enters each table is kept for good (B integers per table). Safe to use from several threads.

    Args:
        lengths: (D,) integers, tokens of each document.
        batch_size: B, rows over all hosts.
        segment_length: N, tokens of a segment.
    """

    def __init__(self, lengths: np.ndarray, *, batch_size: int, segment_length: int):
        self.lengths = _checked_lengths(lengths)
        self.batch_size = _checked_positive("batch_size", batch_size)
        self.segment_length = _checked_positive("segment_length", segment_length)
        self._segments = num_segments(self.lengths, segment_length)
        self._documents_per_table = max(1, _POSITIONS_PER_TABLE // batch_size)
        self._tables: collections.OrderedDict[int, _Table] = collections.OrderedDict()
        self._starts = [np.zeros(batch_size, np.int64)]
        self._lock = threading.Lock()

    @abc.abstractmethod
    def assign(self, start: int, stop: int) -> np.ndarray:
        """Returns every row's start-th, ..., (stop - 1)-th documents: (B, stop - start) int64, each with a segment."""
        ...

    def locate(self, step: int) -> RowPositions:
        """Returns the segments that all rows read at a step.

        Args:
            step: step, from 0, without upper limit.

        Returns:
            Arrays over all B rows.
        """
        if step < 0:
            raise InputError(f"step = {step}: must be at least 0")
        with self._lock:
            documents, segments = self._find(step)
        return RowPositions(documents, segments * self.segment_length, segments == 0)

    def _find(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        while self._starts[-1].min() <= step:
            self._table(len(self._starts) - 1)
        documents = np.empty(self.batch_size, np.int64)
        segments = np.empty(self.batch_size, np.int64)
        # Rows advance at different speeds and may be in different tables; each table is searched once.
        rows, number = np.arange(self.batch_size), self._last_started(step)
        while len(rows):
            here = self._starts[number][rows] <= step
            found = rows[here]
            if len(found):
                steps = step - self._starts[number][found]
                documents[found], segments[found] = self._table(number).find(found, steps)
            rows, number = rows[~here], number - 1
        return documents, segments

    def _last_started(self, step: int) -> int:
        """Returns the last table that any row has entered at `step`."""
        low, high = 0, len(self._starts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._starts[middle].min() <= step else (low, middle - 1)
        while low + 1 < len(self._starts) and (self._starts[low + 1] <= step).any():
            low += 1
        return low

    def _table(self, number: int) -> _Table:
        if number not in self._tables:
            count = self._documents_per_table
            documents = self.assign(number * count, (number + 1) * count)
            self._tables[number] = table = _Table(documents, self._segments[documents])
            if number == len(self._starts) - 1:
                self._starts.append(self._starts[-1] + table.totals)
            if len(self._tables) > _CACHED_TABLES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(number)
        return self._tables[number]


class DocumentSchedule(RowSchedule):
    """The training schedule: row r reads the documents at positions r, r + B, r + 2B, ... of `ShuffledEpochs`.

    Every document with at least two tokens appears once in each epoch. There may be fewer documents than rows.

    Args:
        lengths: (D,) integers, tokens of each document.
        batch_size: B, rows over all hosts.
        segment_length: N, tokens of a segment.
        seed: seed of the document order.

    Raises:
        InputError: no document has two tokens, or an argument is out of range.
    """

    def __init__(self, lengths: np.ndarray, *, batch_size: int, segment_length: int, seed: int):
        super().__init__(lengths, batch_size=batch_size, segment_length=segment_length)
        self.seed = seed
        self._usable = np.flatnonzero(self._segments)
        self._order = ShuffledEpochs(len(self._usable), seed)

    def assign(self, start: int, stop: int) -> np.ndarray:
        """See `RowSchedule.assign`."""
        positions = self._order.read(start * self.batch_size, stop * self.batch_size)
        return np.ascontiguousarray(self._usable[positions].reshape(-1, self.batch_size).T)

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of everything that determines `locate`: equal fingerprints and stores yield equal batches."""
        numbers = np.array([self.batch_size, self.segment_length, self.seed], "<u8")
        return hashlib.sha256(_VERSION + numbers.tobytes() + self.lengths.astype("<i8").tobytes()).hexdigest()


def busy_rows(lengths: np.ndarray, batch_size: int, multiple: int = 1) -> int:
    """Returns a number of rows that end an evaluation at about the same time.

    With more rows, all but one of them would wait for the end of a very long document. The results are the same.

    Args:
        lengths: (D,) integers, tokens of each document.
        batch_size: the largest number of rows; it is halved until the rows are busy.
        multiple: the result stays a multiple of this.
    """
    rows = batch_size
    while rows % (2 * multiple) == 0 and rows * lengths.max() > 1.5 * lengths.sum():
        rows //= 2
    return rows


class EvaluationSchedule:
    """The evaluation schedule, one pass: every document once, the longest first, each on the first free row.

    Args:
        lengths: (D,) integers, tokens of each document.
        batch_size: B, rows over all hosts.
        segment_length: N, tokens of a segment.

    Raises:
        InputError: no document has two tokens, or an argument is out of range.
    """

    def __init__(self, lengths: np.ndarray, *, batch_size: int, segment_length: int):
        self.lengths = _checked_lengths(lengths)
        self.batch_size = _checked_positive("batch_size", batch_size)
        self.segment_length = _checked_positive("segment_length", segment_length)
        self._segments = num_segments(self.lengths, segment_length)
        if not self._segments.any():
            raise InputError("nothing to read: no document has the two tokens that one prediction needs")
        self._table = self._assign()
        self.num_steps = int(self._table.totals.max())

    def _assign(self) -> _Table:
        order = np.argsort(-self._segments, kind="stable")
        rows: list[list[int]] = [[] for _ in range(self.batch_size)]
        free = [(0, row) for row in range(self.batch_size)]
        for document in order[: np.count_nonzero(self._segments)].tolist():
            load, row = free[0]
            rows[row].append(document)
            heapq.heapreplace(free, (load + int(self._segments[document]), row))
        documents = np.full((self.batch_size, max(map(len, rows))), IDLE, np.int64)
        for row, dealt in enumerate(rows):
            documents[row, : len(dealt)] = dealt
        return _Table(documents, np.where(documents == IDLE, 0, self._segments[documents]))

    def locate(self, step: int) -> RowPositions:
        """Returns the segments that all rows read at a step; rows that have read all their documents are idle.

        Args:
            step: step, from 0 to `num_steps` - 1.

        Returns:
            Arrays over all B rows.

        Raises:
            InputError: the step is out of range.
        """
        if not 0 <= step < self.num_steps:
            raise InputError(f"step = {step}: must be from 0 to {self.num_steps - 1}, one pass over the documents")
        documents = np.full(self.batch_size, IDLE, np.int64)
        segments = np.zeros(self.batch_size, np.int64)
        rows = np.flatnonzero(self._table.totals > step)
        documents[rows], segments[rows] = self._table.find(rows, np.full(len(rows), step))
        return RowPositions(documents, segments * self.segment_length, segments == 0)


def _checked_lengths(lengths: np.ndarray) -> np.ndarray:
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or (lengths.size and not np.issubdtype(lengths.dtype, np.integer)):
        raise InputError(
            f"lengths of shape {lengths.shape} and dtype {lengths.dtype}: must be one integer per document"
        )
    lengths = lengths.astype(np.int64)
    lengths.flags.writeable = False
    return lengths


def _checked_positive(name: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{name} = {value}: must be at least 1")
    return value
