import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.recorded_vocabulary import load_recorded_vocabulary
from block_recurrent.data.sources.catalog import load_source
from block_recurrent.data.sources.python_stdlib import PythonStdlib
from block_recurrent.data.sources.source import Counts
from block_recurrent.data.sources.synthetic import SyntheticRecall
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.train_vocabulary import train_vocabulary
from block_recurrent.errors import InputError
from tests.data.sources.conftest import write_files
from tests.support.vocabularies import prose

ODD = "def f(x):\r\n\tif x:\n\n\n        return '漢字 \U0001f600 \x00' # naïve   \n 1234 "


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    files = {f"train/{seed}.txt": prose(seed, 400) + "def f(x):\n        return x\n" for seed in range(20)}
    return write_files(tmp_path_factory.mktemp("corpus"), files)


def source_of(corpus):
    return load_source(PrepareConfig(source="text_folder", store="unused", input=str(corpus)))


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_no_text_is_unknown_and_decoding_returns_every_text(corpus, tmp_path, model_type):
    path = tmp_path / "folder" / "own.model"
    seen = []
    trained = train_vocabulary(
        source_of(corpus), str(path), size=310, model_type=model_type, progress=lambda *progress: seen.append(progress)
    )
    vocabulary = trained.vocabulary
    for text in (ODD, prose(99, 100), "\n", " ", "\n\n  x"):
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids) == text
        assert not (ids == vocabulary.unknown_id).any()
    assert vocabulary.size == 310
    assert vocabulary.table_size == 384
    assert trained.characters_per_token > 2
    assert seen[-1][0] == seen[-1][1]
    assert [path.name for path in path.parent.iterdir()] == ["own.model"]


def test_training_is_deterministic_and_a_store_accepts_only_its_own_model(corpus, tmp_path):
    first, second = (
        train_vocabulary(source_of(corpus), str(tmp_path / name), size=320, sample_bytes=20_000)
        for name in ("a.model", "b.model")
    )
    assert first.vocabulary.fingerprint == second.vocabulary.fingerprint
    assert 10_000 < first.characters < 60_000
    other = train_vocabulary(source_of(corpus), str(tmp_path / "c.model"), size=330)
    config = PrepareConfig(
        source="text_folder", store=str(tmp_path / "s"), input=str(corpus), vocabulary=str(tmp_path / "a.model")
    )
    (summary,) = prepare(config)
    recorded = TokenStore.open(summary.path).vocabulary
    assert load_recorded_vocabulary(recorded.spec, recorded.fingerprint).fingerprint == recorded.fingerprint
    (tmp_path / "c.model").replace(tmp_path / "a.model")
    with pytest.raises(InputError, match=f"{other.vocabulary.fingerprint}.*{recorded.fingerprint}"):
        load_recorded_vocabulary(recorded.spec, recorded.fingerprint)


def test_wrong_arguments_are_refused(corpus, tmp_path):
    taken = tmp_path / "taken.model"
    taken.write_bytes(b"precious")
    with pytest.raises(InputError, match="exists already"):
        train_vocabulary(source_of(corpus), str(taken))
    with pytest.raises(InputError, match=r"cannot train a vocabulary of size 100000: .*too high"):
        train_vocabulary(source_of(corpus), str(tmp_path / "x.model"), size=100_000)
    with pytest.raises(InputError, match="model_type = 'word'"):
        train_vocabulary(source_of(corpus), str(tmp_path / "x.model"), model_type="word")
    with pytest.raises(InputError, match="split = 'dev'"):
        train_vocabulary(SyntheticRecall(), str(tmp_path / "x.model"), split="dev")
    assert taken.read_bytes() == b"precious"
    assert not (tmp_path / "x.model").exists()


def test_decoding_returns_real_code(tmp_path):
    source = PythonStdlib()
    trained = train_vocabulary(source, str(tmp_path / "code.model"), size=500, sample_bytes=300_000)
    (record, *_) = source.files("validation")
    (document,) = source.documents(record, Counts())
    assert trained.vocabulary.decode(trained.vocabulary.encode(document.text)) == document.text
