import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from block_recurrent.data import vocabulary as vocabulary_module
from block_recurrent.data.vocabulary import ByteVocabulary, SentencePieceVocabulary, load_vocabulary
from block_recurrent.errors import InputError
from tests.support.vocabularies import prose, train_pieces

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(TEXT)
def test_bytes_are_utf8_plus_three(text):
    ids = ByteVocabulary().encode(text)
    assert ids.tolist() == [byte + 3 for byte in text.encode()]
    assert ByteVocabulary().decode(ids) == text
    assert ByteVocabulary().first_token_bytes(text) == min(1, len(text))


def test_special_byte_ids_have_no_text():
    vocabulary = load_vocabulary("bytes")
    assert (vocabulary.spec, vocabulary.size, vocabulary.table_size, vocabulary.unknown_id) == ("bytes", 259, 260, 2)
    assert vocabulary.decode([0, 1, 2, 259, *vocabulary.encode("é")[:1], 100]) == "\ufffda"
    assert vocabulary.decode(vocabulary.encode("a\ud800\udc00\udfffb")) == "a\U00010000\ufffdb"  # no UTF-8 of their own


def test_ids_equal_those_of_sentencepiece(model_path, pieces):
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=model_path)
    for seed in range(20):
        text = prose(seed, 30) + "ß 漢字"
        ids = pieces.encode(text)
        assert ids.tolist() == processor.encode(text)
        assert pieces.decode(ids) == processor.decode(ids.tolist())
        assert (ids == pieces.unknown_id).any()
    assert pieces.decode([10_000, -1]) == processor.decode([2, 2])
    assert load_vocabulary(model_path).fingerprint == pieces.fingerprint


def test_a_copy_in_another_process_is_the_same(pieces):
    copy = pickle.loads(pickle.dumps(pieces))
    text = prose(3, 50)
    assert (copy.encode(text) == pieces.encode(text)).all()
    assert (copy.spec, copy.fingerprint, copy.table_size) == (pieces.spec, pieces.fingerprint, pieces.table_size)


def test_tables_are_padded_and_t5_has_its_extra_ids(model_path, pieces, monkeypatch):
    used = pieces.size
    assert used <= 128 == pieces.table_size
    monkeypatch.setattr(vocabulary_module, "_T5_PIECES", used)
    like_t5 = SentencePieceVocabulary(model_path)  # pad 0, eos 1, unk 2, no bos, and "T5's" number of pieces
    assert like_t5.size == used + 100
    assert like_t5.table_size == -(-(used + 100) // 128) * 128
    assert like_t5.fingerprint != pieces.fingerprint
    assert SentencePieceVocabulary(model_path, extra_ids=0).fingerprint == pieces.fingerprint


def test_first_token_covers_its_bytes_and_the_blanks_dropped_before_it(pieces):
    for text in ["the river", "  café the", "größer " * 100, "漢 x", "", " ", "\n\nBern"]:
        ids = pieces.encode(text)
        covered = text.encode()[: pieces.first_token_bytes(text)].decode()
        if not len(ids):
            assert covered == ""
        elif ids[0] != pieces.unknown_id:
            assert covered.strip() == pieces.decode(ids[:1]).strip()
    assert pieces.first_token_bytes("  the river") == 5


def test_cutting_long_texts_does_not_change_the_ids(model_path, pieces, monkeypatch):
    text = prose(1, 400)
    whole = pieces.encode(text)
    monkeypatch.setattr(vocabulary_module, "_UNIGRAM_CHARACTERS", 100)
    cutting = SentencePieceVocabulary(model_path)
    assert (cutting.encode(text) == whole).all()
    assert len(list(cutting._parts(text))) > 10
    long_word = "naïve" * 100
    assert cutting.encode(long_word).tolist() == cutting._processor.encode(long_word)


@pytest.mark.parametrize("options", [{}, {"add_dummy_prefix": False, "remove_extra_whitespaces": False}])
def test_bpe_models_have_their_own_limit(tmp_path, monkeypatch, options):
    texts = [prose(seed, 40) + "    indented   text\n" for seed in range(60)]
    path = train_pieces(tmp_path / "bpe", sentence_iterator=iter(texts), vocab_size=80, model_type="bpe", **options)
    whole = SentencePieceVocabulary(path).encode("".join(texts))
    monkeypatch.setattr(vocabulary_module, "_BPE_CHARACTERS", 100)
    cutting = SentencePieceVocabulary(path)
    assert (cutting.encode("".join(texts)) == whole).all()
    assert len(list(cutting._parts("".join(texts)))) > 10


def test_texts_are_never_cut_if_pieces_contain_blanks(tmp_path, monkeypatch):
    path = train_pieces(
        tmp_path / "across",
        sentence_iterator=iter(["of the house of the river"] * 50),
        vocab_size=40,
        model_type="bpe",
        split_by_whitespace=False,
    )
    monkeypatch.setattr(vocabulary_module, "_BPE_CHARACTERS", 100)
    vocabulary = SentencePieceVocabulary(path)
    text = "of the house of the river " * 30
    assert list(vocabulary._parts(text)) == [text]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "the file is empty"), (b"not a model", "not a SentencePiece model")],
)
def test_errors_name_the_file(tmp_path, content, message):
    path = tmp_path / "some.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_vocabulary(str(path))
    assert "some.model" in str(caught.value)


def test_fingerprint_of_bytes_never_changes():
    # Stores and checkpoints record it.
    assert ByteVocabulary.fingerprint == hashlib.sha256(b"bytes: id = byte + 3, table 260").hexdigest()
    assert np.dtype(np.uint16) == ByteVocabulary().encode("x").dtype


def test_streamed_text_has_whole_characters_and_equals_the_decoded_text(tmp_path):
    path = train_pieces(tmp_path / "bytes", byte_fallback=True, vocab_size=320)
    vocabulary = load_vocabulary(path)
    text = "the café, 漢😀 and  the 😀river"
    ids = vocabulary.encode(text).tolist()
    assert len([i for i in ids if i == vocabulary.unknown_id]) == 0
    ids = [*ids, *ids[-3:], *vocabulary.encode("😀").tolist()[:3]]  # ends within a character
    for start in (0, 1, 4, len(ids)):
        stream = vocabulary.detokenizer(ids[:start])
        shown = [stream.push(token) for token in ids[start:]]
        whole = vocabulary.decode(ids[:start]) + "".join(shown) + stream.flush()
        assert whole == vocabulary.decode(ids)
        assert not any("\ufffd" in piece for piece in shown)


@given(st.lists(st.integers(0, 59), max_size=30), st.integers(0, 30))
def test_any_ids_stream_to_their_decoded_text(pieces, ids, start):
    stream = pieces.detokenizer(ids[:start])
    shown = "".join(stream.push(token) for token in ids[start:]) + stream.flush()
    assert pieces.decode(ids[:start]) + shown == pieces.decode(ids)


def test_unknown_text_streams_as_the_unknown_piece(pieces):
    ids = pieces.encode("the ☃ river").tolist()
    assert pieces.unknown_id in ids
    stream = pieces.detokenizer([])
    assert "".join(stream.push(token) for token in ids) + stream.flush() == pieces.decode(ids)
