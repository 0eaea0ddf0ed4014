import numpy as np

from block_recurrent.data.store.excerpt import Excerpt
from tests.data.conftest import write_store

TEXTS = ["b" * 5, "a" * 9, "", "c" * 9, "d", "e" * 9]


def test_an_excerpt_holds_the_first_tokens_of_the_longest_documents(tmp_path):
    store = write_store(tmp_path / "test", TEXTS)
    excerpt = Excerpt.longest(store, documents=2, tokens=6)
    assert excerpt.documents.tolist() == [1, 3]  # of three documents of one length, the first two
    assert excerpt.lengths.tolist() == [6, 6]
    pieces = [(0, 0, 100), (1, 4, 100), (1, 6, 100), (0, 2, 4)]
    read = excerpt.read_many(pieces)
    assert [len(piece) for piece in read] == [6, 2, 0, 2]
    for (document, start, _), piece in zip(pieces, read, strict=True):
        np.testing.assert_array_equal(piece, store.read(int(excerpt.documents[document]), start, start + len(piece)))
    assert excerpt.bytes.tolist() == [6, 6]  # bytes as tokens: in proportion is exact


def test_an_excerpt_of_everything_is_the_split(tmp_path):
    store = write_store(tmp_path / "test", TEXTS)
    excerpt = Excerpt.longest(store, documents=100, tokens=100)
    usable = store.lengths > 1
    for column in ("lengths", "bytes", "first_token_bytes"):
        np.testing.assert_array_equal(getattr(excerpt, column), getattr(store, column))
    for column in ("characters", "words"):
        np.testing.assert_array_equal(getattr(excerpt, column)[usable], getattr(store, column)[usable])
