import gzip
import json

import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation import shards
from block_recurrent.data.preparation.beam import finish, run_pipeline
from block_recurrent.data.preparation.prepare import identity_of, prepare
from block_recurrent.data.preparation.workers import Encoder
from block_recurrent.data.sources.catalog import load_source
from block_recurrent.data.store.encoded_document import token_dtype
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.vocabulary import load_vocabulary
from block_recurrent.errors import InputError
from tests.data.preparation.test_prepare import contents
from tests.data.sources.conftest import write_files
from tests.data.sources.test_arxiv import PAPERS, tar
from tests.support.vocabularies import prose


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder in arXiv's layout: tars and single papers, some of them broken, and one paper twice."""
    papers = {
        f"2403/2403.{1000 + n}.gz": gzip.compress(b"\\begin{document}" + prose(n, 300).encode()) for n in range(30)
    }
    files = {
        "arXiv_src_2403_001.tar": tar(PAPERS),
        "arXiv_src_2403_002.tar": tar(papers),
        "arXiv_src_2403_003.tar": tar(papers)[:4000],
        "loose/2403.1005.gz": papers["2403/2403.1005.gz"],
    }
    return write_files(tmp_path_factory.mktemp("arxiv"), files)


@pytest.fixture
def small(monkeypatch):
    """Makes units and shards small, so that there are many."""
    monkeypatch.setattr(shards, "_BYTES_PER_UNIT", 1000)
    monkeypatch.setattr(shards, "_BYTES_PER_SHARD", 1000)
    monkeypatch.setattr(shards, "_RECORDS_PER_GROUP", 3)


def config_of(corpus, folder, vocabulary="bytes"):
    return PrepareConfig(
        source="arxiv", store=str(folder), input=str(corpus), vocabulary=vocabulary, test_percent=20, workers=1
    )


def encode_all(config, units_done=lambda number: True):
    """Does the pipeline's work without Beam."""
    source, vocabulary = load_source(config), load_vocabulary(config.vocabulary)
    encoder = Encoder(source, vocabulary, token_dtype(vocabulary.table_size))
    for split in source.splits:
        folder = shards.shard_folder(config.store, split)
        units = shards.divide_into_units(source.files(split))
        shards.write_plan(folder, identity_of(source, split, vocabulary), units)
        for unit in reversed(units):
            if units_done(unit.number):
                shards.UnitEncoder(encoder, split, str(folder))(unit)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("vocabulary", ["bytes", "pieces"])
def test_joined_shards_are_the_store_that_one_machine_writes(corpus, tmp_path, vocabulary, model_path):
    spec = model_path if vocabulary == "pieces" else "bytes"
    local = prepare(config_of(corpus, tmp_path / "local", spec))
    config = config_of(corpus, tmp_path / "joined", spec)
    encode_all(config)
    assert len(list((tmp_path / "joined/.parts/train").glob("*.part"))) > 5
    seen = []
    built = finish(config, progress=lambda *progress: seen.append(progress))
    assert [summary.metadata for summary in built] == [summary.metadata for summary in local]
    assert contents(tmp_path / "joined") == contents(tmp_path / "local")
    assert seen[-1][0] == seen[-1][1]
    assert local[0].metadata.left_out["documents with the name of an earlier one (left out)"] >= 1
    assert local[0].metadata.left_out["monthly tars that end early or are damaged (read up to there)"] == 1


@pytest.mark.usefixtures("small")
def test_unfinished_units_are_an_error_and_can_be_done_later(corpus, tmp_path):
    config = config_of(corpus, tmp_path / "s")
    with pytest.raises(InputError, match="nothing to finish"):
        finish(config)
    encode_all(config, units_done=lambda number: number != 1)
    with pytest.raises(InputError, match="1 of 4 units are not done yet"):
        finish(config)
    with pytest.raises(InputError):
        TokenStore.open(tmp_path / "s" / "train")
    encode_all(config)
    finish(config)
    prepare(config_of(corpus, tmp_path / "local"))
    assert contents(tmp_path / "s") == contents(tmp_path / "local")


def test_a_damaged_shard_is_named(corpus, tmp_path):
    config = config_of(corpus, tmp_path / "s")
    encode_all(config)
    (shard,) = (tmp_path / "s/.parts/train").glob("000000-0000.part")
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"000000-0000\.part: missing or damaged"):
        finish(config)
    shard.unlink()
    with pytest.raises(InputError, match=r"000000-0000\.part: missing or damaged"):
        finish(config)


def test_shards_of_another_preparation_are_refused(corpus, tmp_path, model_path):
    encode_all(config_of(corpus, tmp_path / "s"))
    other = config_of(corpus, tmp_path / "s", model_path)
    with pytest.raises(InputError, match="holds shards of another preparation"):
        finish(other)
    with pytest.raises(InputError, match="holds shards of another preparation"):
        encode_all(other)


def test_files_are_divided_in_order(small):
    from block_recurrent.data.sources.source import Record

    files = [Record(str(index), None, size) for index, size in enumerate([5000, 300, 300, 300, 300, 1, 9000, 2])]
    units = shards.divide_into_units(files)
    assert [[file.name for file in unit.files] for unit in units] == [["0"], ["1", "2", "3"], ["4", "5"], ["6"], ["7"]]
    assert [unit.number for unit in units] == list(range(5))
    assert shards.divide_into_units([]) == []


def test_the_direct_runner_writes_the_same_store(corpus, tmp_path, small):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    config = config_of(corpus, tmp_path / "beam")
    done = run_pipeline(config, ["--runner=DirectRunner", "--direct_num_workers=1"])
    assert done["train"] == 4
    plan = json.loads((tmp_path / "beam/.parts/train/plan.json").read_text())
    assert plan["units"] == 4
    finish(config)
    prepare(config_of(corpus, tmp_path / "local"))
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")


def test_without_beam_the_extra_is_named(corpus, tmp_path):
    try:
        import apache_beam as _  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        with pytest.raises(InputError, match=r"\[beam\]"):
            run_pipeline(config_of(corpus, tmp_path / "s"))
    else:
        pytest.skip("the extra `beam` is installed")
