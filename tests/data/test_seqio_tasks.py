"""All tests that import TensorFlow, in one module, so that it is imported once."""

import gzip
import importlib
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.sources.catalog import SOURCES
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.vocabulary import ByteVocabulary, SentencePieceVocabulary
from block_recurrent.errors import InputError
from tests.data.sources.conftest import write_files
from tests.data.sources.test_arxiv import MAIN, paper, tar
from tests.support.vocabularies import prose

pytestmark = pytest.mark.filterwarnings("ignore")  # TensorFlow's warnings


@pytest.fixture(scope="module")
def tasks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("block_recurrent.data.seqio_tasks")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A small copy of PG19's public bucket."""
    books = {f"{split}/{10 * index + number}.txt": f"\n\n{prose(10 * index + number, 300)}\n"
             for index, split in enumerate(("train", "validation", "test")) for number in range(4)}  # fmt: skip
    metadata = "".join(
        f"{10 * index + number},Title {number},1900,http://x\n" for index in range(3) for number in range(4)
    )
    books |= {"metadata.csv": metadata, "train/3.txt": "\ufeff" + prose(3, 50), "test/23.txt": "café ☕\r\n漢字"}
    return write_files(tmp_path_factory.mktemp("pg19"), books)


@pytest.fixture(scope="module")
def tfds_folder(tasks, bucket, tmp_path_factory):
    """The bucket as prepared by TensorFlow Datasets."""
    import tensorflow_datasets as tfds

    module = importlib.import_module("tensorflow_datasets.datasets.pg19.pg19_dataset_builder")
    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(module, "_DATA_DIR", str(bucket))
        tfds.builder("pg19", data_dir=folder).download_and_prepare()
    return folder


def seqio_ids(task, split):
    """Returns a seqio task's ids by name."""
    dataset = task.get_dataset(sequence_length=None, split=split, shuffle=False)
    return {example["name"].decode(): example["targets"] for example in dataset.as_numpy_iterator()}


def store_ids(config, split):
    """Prepares a source and returns a split's ids by name; checks that random access returns the same ids."""
    summary = next(summary for summary in prepare(config) if summary.path.name == split)
    store = TokenStore.open(summary.path)
    sequential = [store.read(document, 0, 10**9) for document in range(len(store))]
    for document in np.random.default_rng(0).permutation(len(store)):
        middle = len(sequential[document]) // 2
        parts = store.read_many([(document, middle, 10**9), (document, 0, middle)])
        assert (np.concatenate([parts[1], parts[0]]) == sequential[document]).all()
    return dict(zip(store.names, sequential, strict=True))


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert first
    for name, ids in first.items():
        assert ids.tolist() == second[name].tolist()


SAMPLES = {
    "text_folder": {"train/a.txt": prose(1, 400), "train/b.txt": "x", "validation/c.txt": "café\r\n漢字\0"},
    "jsonl": {
        "train.jsonl": json.dumps({"text": prose(2, 300)}) + "\n" + json.dumps({"text": "two \ud800"}) + "\n",
        "validation.jsonl": json.dumps({"text": "three"}) + "\n",
    },
    "github": {"train/one/a.py": "x = 1", "train/one/b.c": "int b;", "validation/two/c.rs": "fn main() {}"},
    "arxiv": {
        "train/arXiv_src_2403_001.tar": tar({"2403/1.gz": paper({"main.tex": MAIN, "intro.tex": "Intro."})}),
        "validation/2403.2.gz": gzip.compress(b"\\documentclass{a}\\begin{document}x\\end{document}"),
    },
    "pg19": {"train/1.txt": "  one\n", "validation/2.txt": "two", "metadata.csv": "1,One,1900,x\n"},
}


@pytest.mark.parametrize("source", [*SAMPLES, "python_stdlib", "synthetic_recall"])
def test_prepared_ids_equal_the_ids_of_seqio_tasks(tasks, source, tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCK_RECURRENT_DATA", str(tmp_path / "data"))
    given = None
    if source in SAMPLES:
        given = str(write_files(tmp_path / "data" / source, SAMPLES[source]))
    config = PrepareConfig(source=source, store=str(tmp_path / "s"), input=given, workers=1)
    name = f"{source}_{tmp_path.name}"
    registered = tasks.register_task(name, config)
    for split in ("train", "validation") if source in SAMPLES else ("validation",):
        assert_same(seqio_ids(registered, split), store_ids(config, split))


@pytest.mark.parametrize("vocabulary", ["bytes", "pieces"])
def test_pg19_from_bucket_and_tfds_has_the_same_books(tasks, bucket, tfds_folder, tmp_path, model_path, vocabulary):
    spec = model_path if vocabulary == "pieces" else "bytes"
    raw = PrepareConfig(source="pg19", store=str(tmp_path / "raw"), input=str(bucket), vocabulary=spec, workers=1)
    through = PrepareConfig(
        source="pg19_tfds", store=str(tmp_path / "tfds"), input=str(tfds_folder), vocabulary=spec, workers=1
    )
    registered = [
        tasks.register_task(f"{config.source}_{vocabulary}_{tmp_path.name}", config) for config in (raw, through)
    ]
    load = SentencePieceVocabulary(spec) if vocabulary == "pieces" else ByteVocabulary()
    for split in ("train", "validation", "test"):
        found = [store_ids(config, split) for config in (raw, through)] + [
            seqio_ids(task, split) for task in registered
        ]
        for other in found[1:]:
            assert_same(found[0], other)
        for name, ids in found[0].items():
            text = (bucket / split / f"{name.split()[0]}.txt").read_bytes().decode("utf-8-sig").strip()
            assert ids.tolist() == load.encode(text).tolist()


def test_worker_processes_do_not_import_tensorflow(tasks, tfds_folder, tmp_path):
    config = PrepareConfig(source="pg19_tfds", store=str(tmp_path / "s"), input=str(tfds_folder), workers=2)
    assert len(prepare(config)) == 3
    code = "import sys, block_recurrent.data.preparation.workers, block_recurrent.data.sources.catalog\n"
    code += "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unprepared_tfds_data_set_is_an_error(tasks, tmp_path):
    with pytest.raises(InputError, match=r"TFDS data set pg19: not prepared in .*`tfds build pg19`"):
        prepare(PrepareConfig(source="pg19_tfds", store=str(tmp_path / "s"), input=str(tmp_path)))


def test_every_source_has_its_tasks_registered(tasks):
    import seqio

    names = {task for entry in SOURCES.values() for task in entry.tasks}
    assert {"pg19_tokens", "pg19_bytes", "arxiv", "github", "text_folder", "jsonl", "python_stdlib"} <= names
    for name in names:
        task = seqio.TaskRegistry.get(name)
        assert not task.output_features["targets"].add_eos
        vocabulary = task.output_features["targets"].vocabulary
        if name.endswith("_tokens"):
            assert isinstance(vocabulary, seqio.SentencePieceVocabulary)
            assert vocabulary.sentencepiece_model_file == tasks.T5_VOCABULARY
            assert vocabulary.extra_ids == 100
        else:
            assert vocabulary == seqio.ByteVocabulary()


def test_a_registered_task_finds_its_input(tasks, tmp_path, monkeypatch):
    import seqio

    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "data" / "text_folder", {"train/a.txt": "one"})
    ids = seqio_ids(seqio.TaskRegistry.get("text_folder"), "train")
    assert ids["train/a.txt"].tolist() == [byte + 3 for byte in b"one"]


def test_vocabularies_agree_with_seqio(tasks, model_path):
    for spec, ours in (("bytes", ByteVocabulary()), (model_path, SentencePieceVocabulary(model_path))):
        theirs = tasks.seqio_vocabulary(spec)
        assert theirs.vocab_size == ours.size
        assert theirs.unk_id == ours.unknown_id
        for text in ["", "x", prose(5, 200), "漢字 \t\n\r  é\u0301 \ufeff \U0001f600 <extra_id_0> </s>", "\0"]:
            assert theirs.encode(text) == ours.encode(text).tolist()
            if spec != "bytes":
                assert theirs.decode(ours.encode(text).tolist()) == ours.decode(ours.encode(text))
