import io

import pytest
import sentencepiece

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation import round_trip
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.vocabulary import ByteVocabulary, SentencePieceVocabulary
from tests.data.sources.conftest import write_files

CODE = "def f(x):\n    if x:\n        return 1\n\n    return  2\n" * 40


@pytest.fixture(scope="module")
def default_model(tmp_path_factory):
    """Path of a model with SentencePiece's default normaliser."""
    model = io.BytesIO()
    lines = iter(CODE.replace("\n", " \n").splitlines() * 5)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, vocab_size=60, model_type="bpe", minloglevel=2,
        hard_vocab_limit=False, byte_fallback=False,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "default.model"
    path.write_bytes(model.getvalue())
    return str(path)


def test_newlines_and_indentation_that_do_not_return_are_counted(default_model):
    result = round_trip.check(iter([CODE[:50]]), SentencePieceVocabulary(default_model))
    # 5 line ends and 20 blanks become 7 single blanks or nothing.
    blanks = sum(character.isspace() for character in CODE[:50])
    kept = len(CODE[:50].split()) - 1 - CODE[:50].strip().count("\n")
    assert result.characters == 50
    assert blanks - 12 <= result.lost <= blanks - kept
    text, returned = result.example or ("", "")
    assert "\n" in text
    assert "\n" not in returned


def test_a_vocabulary_that_returns_everything_has_no_warning(model_path):
    texts = [CODE, "caf\u00e9 \U0001f600\r\n\t x", ""]
    assert round_trip.check(iter(texts), ByteVocabulary()).example is None
    prose = round_trip.check(iter(["plain words\n" * 400]), ByteVocabulary())
    assert (prose.documents, prose.lost, prose.example) == (1, 0, None)


@pytest.mark.parametrize(
    ("text", "returned", "lost"),
    [("a b", "a b", 0), ("a\nb", "a b", 1), ("  a", "a", 2), ("Hello", "hello", 1), ("ab", "", 2), ("a", "abc", 0)],
)
def test_lost_characters(text, returned, lost):
    assert round_trip._lost(text, returned) == lost


def test_prepare_warns_once_with_a_share_and_an_example(tmp_path, default_model):
    write_files(tmp_path / "in", {"train/a.txt": CODE, "train/b.txt": CODE, "test/c.txt": CODE})
    config = PrepareConfig(
        source="text_folder", store=str(tmp_path / "s"), input=str(tmp_path / "in"), vocabulary=default_model, workers=1
    )
    train, test = prepare(config)
    (warning,) = train.warnings
    assert (
        "% of the characters in a sample of 2 documents do not return when decoded, for example 'def f(x):\\n"
        in warning
    )
    assert not test.warnings
    assert not prepare(config)[0].warnings


def test_prepare_with_bytes_has_no_warning(tmp_path):
    write_files(tmp_path / "in", {"train/a.txt": CODE, "train/b.txt": b"\xff\r\n"})
    config = PrepareConfig(source="text_folder", store=str(tmp_path / "s"), input=str(tmp_path / "in"), workers=1)
    assert not prepare(config)[0].warnings
