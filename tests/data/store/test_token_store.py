import hashlib
import json
import shutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from block_recurrent.data.sources.source import TextDocument
from block_recurrent.data.store.columns import RECORD
from block_recurrent.data.store.encoded_document import count_words, encode_document, token_dtype
from block_recurrent.data.store.metadata import identity
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.store.writer import StoreWriter
from block_recurrent.data.vocabulary import ByteVocabulary
from block_recurrent.errors import InputError
from tests.data.conftest import describe, write_store
from tests.support.vocabularies import prose


def test_random_access_returns_the_text(sample):
    rng = np.random.default_rng(0)
    whole = [ByteVocabulary().encode(text) for text in sample.texts]
    pieces = []
    for _ in range(200):
        document = int(rng.integers(len(whole)))
        start, stop = sorted(rng.integers(0, len(whole[document]) + 10, 2).tolist())
        pieces.append((document, start, stop))
    for (document, start, stop), read in zip(pieces, sample.store.read_many(pieces), strict=True):
        assert (read == whole[document][start:stop]).all()
    for document, text in enumerate(sample.texts):
        assert ByteVocabulary().decode(sample.store.read(document, 0, len(text) * 4)) == text


def test_columns_and_counts_match_the_texts(sample):
    store, texts = sample.store, sample.texts
    assert len(store) == len(texts)
    assert store.lengths.tolist() == store.bytes.tolist() == [len(text.encode()) for text in texts]
    assert store.characters.tolist() == [len(text) for text in texts]
    assert store.words.tolist() == [len(text.split()) for text in texts]
    assert store.first_token_bytes.tolist() == [1] * len(texts)
    assert not store.unknown_tokens.any()
    assert list(store.names) == [f"document {index}" for index in range(len(texts))]
    assert store.names.find("document 3") == 3
    assert store.names.find("nothing") is None
    counts = store.metadata.counts
    assert (counts.documents, counts.tokens) == (len(texts), sum(store.lengths))
    assert (counts.characters, counts.words) == (sum(store.characters), sum(store.words))
    assert (counts.longest_document, counts.median_document) == (max(store.lengths), np.median(store.lengths))
    digests = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    assert store.metadata.content_fingerprint == hashlib.sha256(digests).hexdigest()


def test_fingerprint_changes_with_texts_order_and_vocabulary(tmp_path, pieces):
    first = write_store(tmp_path / "a", ["one", "two"]).fingerprint
    assert write_store(tmp_path / "b", {"x": "one", "y": "two"}).fingerprint == first
    others = [
        write_store(tmp_path / "c", ["two", "one"]).fingerprint,
        write_store(tmp_path / "d", ["one", "tw", "o"]).fingerprint,
        write_store(tmp_path / "e", ["one", "two"], pieces).fingerprint,
    ]
    assert len({first, *others}) == 4


@pytest.mark.parametrize(
    ("table", "dtype"), [(256, np.uint8), (260, np.uint16), (32_128, np.uint16), (2**17, np.uint32)]
)
def test_tokens_have_the_smallest_type(tmp_path, table, dtype):
    assert token_dtype(table) == dtype
    ids = np.array([0, table - 1], dtype)
    writer = StoreWriter(tmp_path / "s", identity("t", "train", {}, "", ""), token_dtype(table))
    document = encode_document(TextDocument("x", "ab"), ByteVocabulary(), np.dtype(np.uint16))
    writer.add(type(document)(**{**document.__dict__, "tokens": ids}))
    writer.finish(describe(ByteVocabulary()), {})
    assert TokenStore.open(tmp_path / "s").read(0, 0, 2).tolist() == [0, table - 1]


@given(st.text(max_size=60))
def test_words_are_counted_like_split(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("block_recurrent.data.store.encoded_document._CHARACTERS_PER_PIECE", 7)
        assert count_words(text) == len(text.split())


def test_a_store_may_have_no_documents(tmp_path):
    store = write_store(tmp_path / "empty", [])
    assert len(store) == store.metadata.counts.tokens == 0
    store.verify()
    with pytest.raises(InputError, match="no document 0"):
        store.read(0, 0, 1)


def test_the_shard_size_does_not_change_the_tokens(tmp_path):
    texts = [prose(seed, 3000) for seed in range(4)]
    stores = [write_store(tmp_path / str(shard), texts, shard=shard) for shard in (1 << 14, 1 << 15, 1 << 24)]
    for document in range(4):
        read = [store.read(document, 0, 10**6).tolist() for store in stores]
        assert read[0] == read[1] == read[2]


def test_writing_needs_bounded_memory(tmp_path):
    dtype = np.dtype(np.uint16)
    document = encode_document(TextDocument("x", "abc" * 100_000), ByteVocabulary(), dtype)
    writer = StoreWriter(tmp_path / "s", identity("t", "train", {}, "", ""), dtype, shard=1 << 17)
    tracemalloc.start()
    for _ in range(40):  # 12 M tokens
        writer.add(document)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    writer.close()
    assert peak < 2 << 20


@pytest.mark.parametrize("stop_after", [0, 1, 2, 5, 7])
def test_an_interrupted_writer_continues_to_the_same_bytes(tmp_path, stop_after):
    vocabulary, dtype = ByteVocabulary(), np.dtype(np.uint16)
    texts = [prose(seed, size) for seed, size in enumerate([3000, 2000, 9000, 1, 1, 4000, 8000, 300])]

    def write(folder, interrupt):
        writer = StoreWriter(folder, identity("t", "train", {}, "", ""), dtype, shard=1 << 14)
        for index in range(writer.resumed or 0, len(texts)):
            if index == interrupt:
                return writer.close()
            writer.add(encode_document(TextDocument(f"d{index}", texts[index]), vocabulary, dtype))
            writer.checkpoint(index + 1)
        return writer.finish(describe(vocabulary), {"something": 3})

    whole = write(tmp_path / "whole", None)
    assert whole is not None
    assert write(tmp_path / "part", stop_after) is None
    with pytest.raises(InputError, match=r"not a finished token store, store\.json is missing"):
        TokenStore.open(tmp_path / "part")
    if stop_after >= 5:
        recovered = StoreWriter(tmp_path / "part", identity("t", "train", {}, "", ""), dtype, shard=1 << 14)
        assert recovered.resumed >= 2
        recovered.close()
    assert write(tmp_path / "part", None) == whole
    for name in whole.files:
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    TokenStore.open(tmp_path / "part").verify()


def test_files_of_another_unfinished_preparation_are_deleted(tmp_path):
    dtype = np.dtype(np.uint16)
    document = encode_document(TextDocument("x", prose(0, 9000)), ByteVocabulary(), dtype)
    for signature in ("old", "new"):
        writer = StoreWriter(tmp_path / "s", identity("t", "train", {}, signature, ""), dtype, shard=1 << 14)
        assert writer.resumed is None
        writer.add(document)
        writer.checkpoint(1)
        writer.add(document)
        writer.close()


@pytest.fixture
def damaged(sample, tmp_path):
    """A copy of the sample's store that the test may damage."""
    return shutil.copytree(sample.store.path, tmp_path / "train")


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 255
    path.write_bytes(data)


def test_a_flipped_byte_in_the_tokens_is_found_by_reading_and_by_verify(damaged):
    flip(damaged / "tokens/c/0", 1000)
    store = TokenStore.open(damaged)
    with pytest.raises(InputError, match=r"cannot read document 2 of token store .*train.*verify"):
        store.read(2, 0, 10_000)
    with pytest.raises(InputError, match="tokens/c/0 is damaged"):
        store.verify()


@pytest.mark.parametrize("shard", ["0", "1"])
def test_a_shard_that_vanishes_after_opening_is_an_error_not_zeros(damaged, shard):
    store = TokenStore.open(damaged)
    (damaged / "tokens/c" / shard).unlink()
    with pytest.raises(InputError, match="cannot read document"):
        store.read_many([(document, 0, 10**6) for document in range(len(store))])
    with pytest.raises(InputError, match="cannot be read"):
        store.verify()


@pytest.mark.parametrize(
    ("name", "action", "message"),
    [
        ("tokens/c/0", "cut", "tokens/c/0: damaged, it has"),
        ("tokens/c/1", "remove", "tokens/c/1: damaged, the file is missing"),
        ("tokens/zarr.json", "remove", "the file is missing"),
        ("tokens/zarr.json", "flip", "tokens: damaged"),
        ("documents/lengths.npy", "flip", r"lengths\.npy: damaged, its checksum"),
        ("store.json", "flip", "damaged"),
        ("store.json", "cut", "damaged, not the JSON"),
        ("store.json", "remove", "not a finished token store"),
    ],
)
def test_damage_is_found_on_opening(damaged, name, action, message):
    path = damaged / name
    if action == "remove":
        path.unlink()
    elif action == "cut":
        path.write_bytes(path.read_bytes()[:-1] if "tokens" in name else path.read_bytes()[:50])
    else:
        flip(path, 200 if name == "store.json" else 0 if "zarr" in name else -1)
    with pytest.raises(InputError, match=message):
        TokenStore.open(damaged)


def test_columns_are_checked_when_they_are_read(damaged):
    flip(damaged / "documents/words.npy", -1)
    store = TokenStore.open(damaged)
    with pytest.raises(InputError, match=r"words\.npy: damaged"):
        _ = store.words


def test_a_changed_number_in_the_metadata_is_detected(damaged):
    content = json.loads((damaged / "store.json").read_text())
    content["counts"]["words"] += 1
    (damaged / "store.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="its checksum does not match"):
        TokenStore.open(damaged)
    content["format_version"] = 99
    (damaged / "store.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="format version 99; this program reads version 1"):
        TokenStore.open(damaged)


def test_errors_for_missing_stores_say_what_exists(sample, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        TokenStore.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds the splits train"):
        TokenStore.open(sample.store.path.parent)
    with pytest.raises(InputError, match=r"validation: no such folder; .* holds the splits train"):
        TokenStore.open(sample.store.path.parent / "validation")
    with pytest.raises(InputError, match="not a finished token store"):
        TokenStore.open(tmp_path)


def test_verify_reports_bytes(sample):
    seen = []
    sample.store.verify(lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == sum(size for size, _ in sample.store.metadata.files.values())


def test_journal_records_have_no_padding():
    assert RECORD.itemsize == 5 * 8 + 2 * 4 + 32
