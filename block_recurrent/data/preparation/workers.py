"""Tokenising in worker processes: deterministic, in order, and with a bounded amount of work in flight.

One process iterates over the source's records; workers read, repair and tokenise them. Results are returned in the
order of the records, so the number of workers does not change the store. Each worker imports this module when it
starts, so it imports little.
"""

import collections
import dataclasses
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from block_recurrent.data.sources.source import Counts, Record, Source
from block_recurrent.data.store.encoded_document import EncodedDocument, encode_document
from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.errors import InputError

EMPTY = "empty documents (left out)"
# Small records are sent together, which keeps the cost of a message below 1 % of its work.
_GROUP_BYTES, _GROUP_RECORDS = 1 << 20, 512
_BYTES_IN_FLIGHT = 16 << 20
_GROUPS_PER_WORKER = 3


@dataclasses.dataclass(frozen=True)
class EncodedGroup:
    """The tokenised documents of consecutive records.

    Attributes:
        records: number of records.
        size: bytes of their input.
        documents: their documents, in order.
        counts: numbers of omissions and repairs by reason.
    """

    records: int
    size: int
    documents: list[EncodedDocument]
    counts: Counts


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Turns records into tokenised documents; picklable.

    Attributes:
        source: reads and repairs the documents of a record.
        vocabulary: tokenises them.
        dtype: unsigned type of the tokens.
    """

    source: Source
    vocabulary: Vocabulary
    dtype: np.dtype

    def __call__(self, records: list[Record]) -> EncodedGroup:
        """Reads, repairs, tokenises and counts the documents of consecutive records."""
        counts = Counts()
        documents = []
        for record in records:
            for document in self.source.documents(record, counts):
                encoded = encode_document(document, self.vocabulary, self.dtype)
                if len(encoded.tokens):
                    documents.append(encoded)
                else:
                    counts[EMPTY] += 1
        return EncodedGroup(len(records), sum(record.size for record in records), documents, counts)


def encode_records(encoder: Encoder, records: Iterable[Record], workers: int) -> Iterator[EncodedGroup]:
    """Tokenises records in worker processes, in order.

    Args:
        encoder: the workers' task.
        records: the records, consumed lazily in this process.
        workers: number of processes; 1 works in this process.

    Yields:
        Groups of consecutive records.

    Raises:
        InputError: a worker found an error in the input, or was killed.
    """
    groups = _groups(records)
    if workers == 1:
        yield from map(encoder, groups)
        return
    context = multiprocessing.get_context("spawn")  # forking a process with threads (TensorStore) is unsafe
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(encoder,))
    try:
        yield from _in_order(pool, groups, workers * _GROUPS_PER_WORKER)
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, probably for lack of memory; try a smaller PrepareConfig.workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, groups: Iterator[list[Record]], most: int) -> Iterator[EncodedGroup]:
    in_flight: collections.deque[tuple[Future[EncodedGroup], int]] = collections.deque()
    sizes = 0
    for group in itertools.chain(groups, [None]):
        size = sum(record.size for record in group or ())
        while in_flight and (group is None or len(in_flight) >= most or sizes + size > _BYTES_IN_FLIGHT):
            future, done = in_flight.popleft()
            sizes -= done
            yield future.result()
        if group is not None:
            in_flight.append((pool.submit(_encode, group), size))
            sizes += size


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    group, size = [], 0
    for record in records:
        if group and (size + record.size > _GROUP_BYTES or len(group) == _GROUP_RECORDS):
            yield group
            group, size = [], 0
        group.append(record)
        size += record.size
    if group:
        yield group


_encoder: Encoder | None = None


def _start_worker(encoder: Encoder) -> None:
    global _encoder
    _encoder = encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it as well and ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _encode(records: list[Record]) -> EncodedGroup:
    assert _encoder is not None  # set by the pool's initializer
    return _encoder(records)
