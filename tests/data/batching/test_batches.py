import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from block_recurrent.data.batching.batches import BatchReader
from block_recurrent.data.batching.prefetch import Prefetcher
from block_recurrent.data.batching.schedule import DocumentSchedule, EvaluationSchedule
from block_recurrent.data.vocabulary import ByteVocabulary

FIELDS = ("tokens", "targets", "weights", "start_of_document", "document", "offset")


@settings(max_examples=25, deadline=None)
@given(batch_size=st.integers(1, 9), segment_length=st.sampled_from([16, 100, 4096]), step=st.integers(0, 500))
def test_a_batch_holds_the_segments_of_the_schedule(sample, batch_size, segment_length, step):
    lengths = sample.store.lengths
    shape = {"batch_size": batch_size, "segment_length": segment_length}
    schedule = DocumentSchedule(lengths, seed=3, **shape)
    batch = BatchReader(sample.store, schedule, segment_length=segment_length).read(step)
    for row in range(batch_size):
        ids = ByteVocabulary().encode(sample.texts[batch.document[row]]).astype(np.int32)
        offset = batch.offset[row]
        inputs, targets = ids[offset:-1][:segment_length], ids[offset + 1 :][:segment_length]
        padding = np.zeros(segment_length - len(inputs))
        assert (batch.tokens[row] == [*inputs, *padding]).all()
        assert (batch.targets[row] == [*targets, *padding]).all()
        assert (batch.weights[row] == [*np.ones(len(inputs)), *padding]).all()
        assert batch.start_of_document[row] == (offset == 0)
    assert (batch.tokens.dtype, batch.targets.dtype, batch.weights.dtype) == (np.int32, np.int32, np.float32)


def test_evaluation_scores_every_token_except_the_first_of_each_document(sample):
    schedule = EvaluationSchedule(sample.store.lengths, batch_size=4, segment_length=128)
    reader = BatchReader(sample.store, schedule, segment_length=128)
    scored = {document: [] for document in range(len(sample.texts))}
    for step in range(schedule.num_steps):
        batch = reader.read(step)
        idle = batch.document < 0
        assert not batch.weights[idle].any()
        assert not batch.tokens[idle].any()
        assert not batch.targets[idle].any()
        assert batch.start_of_document[idle].all()
        for row in np.flatnonzero(~idle):
            assert len(scored[batch.document[row]]) == batch.offset[row]
            scored[batch.document[row]] += batch.targets[row][batch.weights[row] > 0].tolist()
    for document, text in enumerate(sample.texts):
        assert scored[document] == ByteVocabulary().encode(text)[1:].tolist()


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_the_rows_of_all_hosts_form_the_batch(sample, hosts):
    schedule = DocumentSchedule(sample.store.lengths, batch_size=8, segment_length=64, seed=0)
    whole = BatchReader(sample.store, schedule, segment_length=64)
    size = 8 // hosts
    readers = []
    for host in range(hosts):  # every host creates its own schedule
        own = DocumentSchedule(sample.store.lengths, batch_size=8, segment_length=64, seed=0)
        rows = slice(host * size, (host + 1) * size)
        readers.append(BatchReader(sample.store, own, segment_length=64, rows=rows))
    for step in (0, 1, 250):
        parts = [reader.read(step) for reader in readers]
        for field in FIELDS:
            assert (np.concatenate([getattr(part, field) for part in parts]) == getattr(whole.read(step), field)).all()


def test_prefetched_batches_equal_read_batches(sample):
    schedule = DocumentSchedule(sample.store.lengths, batch_size=3, segment_length=64, seed=0)
    reader = BatchReader(sample.store, schedule, segment_length=64)
    with reader.prefetch(10, 30) as batches:
        for step, batch in zip(range(10, 30), batches, strict=True):
            for field in FIELDS:
                assert (getattr(batch, field) == getattr(reader.read(step), field)).all()
        assert next(batches, None) is None


def test_a_reader_refuses_another_segment_length(sample):
    schedule = DocumentSchedule(sample.store.lengths, batch_size=3, segment_length=64, seed=0)
    with pytest.raises(ValueError, match="segment_length = 32"):
        BatchReader(sample.store, schedule, segment_length=32)


def test_an_error_in_the_thread_is_raised_in_place_of_its_item():
    def items():
        yield 1
        yield 2
        raise KeyError("lost")

    with Prefetcher(items(), depth=5) as ahead:
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(KeyError, match="lost"):
            next(ahead)
        with pytest.raises(StopIteration):
            next(ahead)


def test_prefetching_is_bounded_and_ends_its_thread():
    started, fifth_started = [], threading.Event()

    def items():
        for number in range(100):
            started.append(number)
            if number == 4:
                fifth_started.set()
            yield number

    before = threading.active_count()
    with Prefetcher(items(), depth=3) as ahead:
        assert next(ahead) == 0
        assert fifth_started.wait(timeout=10)  # three wait in the queue, the thread holds one more
        for taken in range(2, 51):
            next(ahead)
            assert len(started) <= taken + 3 + 1
    assert threading.active_count() == before
    assert next(ahead, "ended") == "ended"
    with pytest.raises(ValueError, match="depth = 0"):
        Prefetcher(iter([]), depth=0)
