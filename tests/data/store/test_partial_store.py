"""Parts of a split: the documents that are drawn, their tokens, and that they are never taken for the whole split."""

import numpy as np
import pytest

from block_recurrent.data.store.partial_store import partial_store
from tests.data.conftest import write_store

TEXTS = ["b" * 5, "a" * 9, "", "c" * 9, "d", "e" * 9, "é" * 4]
SCORED = 4 + 8 + 8 + 8 + 7


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "test", TEXTS)


def test_limits_above_the_size_of_the_split_are_the_split(store):
    for limits in ({"documents": 5, "tokens": None}, {"documents": None, "tokens": SCORED}):
        assert partial_store(store, **limits, seed=0) is store
    assert store.part is None


def test_documents_are_drawn_by_seed_and_keep_their_order(store):
    drawn = set()
    for seed in range(40):
        part = partial_store(store, documents=2, tokens=None, seed=seed)
        assert (part.lengths > 1).all()
        for own, name in enumerate(part.names):
            document = list(store.names).index(name)
            np.testing.assert_array_equal(part.read(own, 0, 100), store.read(document, 0, 100))
            for column in ("lengths", "bytes", "characters", "words", "first_token_bytes"):
                assert getattr(part, column)[own] == getattr(store, column)[document]
        assert list(part.names) == sorted(part.names, key=list(store.names).index)
        drawn.add(tuple(part.names))
    assert len(drawn) == 10  # every pair of the five documents with a scored token


@pytest.mark.parametrize("tokens", [1, 4, 9, 20, SCORED - 1])
def test_the_last_document_is_truncated_so_that_the_limit_is_exact(store, tokens):
    part = partial_store(store, documents=None, tokens=tokens, seed=3)
    assert (part.lengths - 1).sum() == tokens
    assert (part.lengths > 1).all()
    for own, length in enumerate(part.lengths):
        assert len(part.read(own, 0, 100)) == length
    assert part.metadata.counts.tokens == part.lengths.sum()


def test_a_part_has_a_fingerprint_of_its_own(store):
    parts = [
        partial_store(store, documents=2, tokens=None, seed=0),
        partial_store(store, documents=3, tokens=None, seed=0),
        partial_store(store, documents=2, tokens=3, seed=0),
    ]
    assert len({store.fingerprint, *(part.fingerprint for part in parts)}) == 4
    assert partial_store(store, documents=2, tokens=None, seed=0).fingerprint == parts[0].fingerprint
    assert "2 of 5 documents" in str(parts[0].part)
