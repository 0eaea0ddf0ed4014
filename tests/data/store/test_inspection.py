import numpy as np
import pytest

from block_recurrent.data.store.inspection import (
    decode_document,
    describe,
    find_document,
    length_histogram,
    open_stores,
)
from block_recurrent.errors import InputError
from tests.data.conftest import write_store
from tests.support.vocabularies import prose

TEXTS = {"10 A Tale": prose(1, 200), "11 Other": "short café", "12": prose(2, 900), "7": "x", "empty": ""}


@pytest.fixture(scope="module")
def root(tmp_path_factory, pieces):
    root = tmp_path_factory.mktemp("stores")
    write_store(root / "train", TEXTS)
    write_store(root / "test", TEXTS, pieces)
    return root


def test_all_stores_of_a_folder_are_opened(root):
    assert [store.path.name for store in open_stores(str(root))] == ["test", "train"]
    assert [store.path.name for store in open_stores(str(root / "train"))] == ["train"]
    with pytest.raises(InputError, match="no such folder"):
        open_stores(str(root / "nowhere"))


def test_every_document_is_decoded(root, pieces):
    for store in open_stores(str(root)):
        for document, text in enumerate(TEXTS.values()):
            decoded = decode_document(store, document)
            if store.path.name == "train":
                assert decoded == text
                assert decode_document(store, document, 2, 5) == text.encode()[2:5].decode("utf-8", "replace")
            else:
                assert decoded == pieces.decode(pieces.encode(text))
                assert decode_document(store, document, vocabulary=pieces) == decoded


def test_another_vocabulary_is_refused(root, pieces):
    (train,) = open_stores(str(root / "train"))
    with pytest.raises(
        InputError, match=rf"{pieces.fingerprint}; token store .* 'bytes', fingerprint {train.vocabulary.fingerprint}"
    ):
        decode_document(train, 0, vocabulary=pieces)


def test_documents_are_found_by_name_first_word_or_number(root):
    (train,) = open_stores(str(root / "train"))
    wanted = {"10 A Tale": 0, "11": 1, "12": 2, "7": 3, "0": 0, "4": 4, "empty": 4}
    assert {name: find_document(train, name) for name in wanted} == wanted
    for name in ("99", "Tale", "-1", ""):
        with pytest.raises(InputError, match="no document"):
            find_document(train, name)


def test_the_summary_has_the_counts(root):
    (store,) = open_stores(str(root / "test"))
    rows = dict(describe(store))
    counts = store.metadata.counts
    assert rows["documents"] == "5"
    assert rows["words"] == f"{sum(len(text.split()) for text in TEXTS.values()):,}"
    assert rows["tokens"] == f"{counts.tokens:,}"
    assert rows["unknown tokens"].startswith(f"{counts.unknown_tokens} (")
    assert store.fingerprint in rows.values()


def test_histogram_counts_documents_and_tokens():
    lengths = np.array([0, 1, 2, 3, 4, 7, 8, 1000])
    bins = length_histogram(lengths)
    assert [(b.low, b.high, b.documents, b.tokens) for b in bins[:5]] == [
        (0, 1, 1, 0),
        (1, 2, 1, 1),
        (2, 4, 2, 5),
        (4, 8, 2, 11),
        (8, 16, 1, 8),
    ]
    assert sum(b.documents for b in bins) == 8
    assert sum(b.tokens for b in bins) == lengths.sum()
    assert bins[-1].low == 512
    assert length_histogram(np.array([], int)) == []
    for power in range(1, 50):
        (only,) = length_histogram(np.array([2**power]))
        assert (only.low, only.high) == (2**power, 2 ** (power + 1))
        (only,) = length_histogram(np.array([2**power - 1])) if power < 45 else (None,)
        assert only is None or only.high == 2**power
