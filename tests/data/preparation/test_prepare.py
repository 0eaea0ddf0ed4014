import fcntl
import itertools
import multiprocessing
import os
import subprocess
import sys

import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation import prepare as prepare_module
from block_recurrent.data.preparation.output import StoreOutput
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.sources import catalog
from block_recurrent.data.sources.source import Record, Source, TextDocument
from block_recurrent.data.store import writer as writer_module
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.vocabulary import ByteVocabulary
from block_recurrent.errors import InputError
from tests.support.vocabularies import prose


class Texts(Source):
    """Documents from a dict; with `mistake`, an empty document is an error."""

    name = "texts"

    def __init__(self, texts, *, mistake=False, version=1, published=None):
        self.texts = texts
        self.mistake = mistake
        self.version = version
        self.published_words = published or {}

    @property
    def splits(self):
        return ("train", "test")

    @property
    def settings(self):
        return {"version": self.version}

    def list_files(self, split):
        return [Record("the only file", None, sum(map(len, self.texts.values())))]

    def signature(self, split):
        return f"{len(self.texts)} {split}"

    def records(self, file, split, counts):
        counts["seen"] += len(self.texts)
        for name, text in self.texts.items():
            yield Record(name, text, len(text))

    def documents(self, record, counts):
        if self.mistake and record.payload == "":
            raise InputError("a mistake in the input")
        if not record.payload:
            counts["nothing"] += 1
        yield TextDocument(record.name.split("#")[0], record.payload)


TEXTS = {f"d{seed}": prose(seed, 200 * seed) for seed in range(1, 30)}
TEXTS |= {"d1#again": "another text of the same name", "empty": "", "one": "x"}


@pytest.fixture
def source(monkeypatch):
    """Returns a function that registers a source `texts` with the given contents."""

    def use(texts=TEXTS, **options):
        entry = catalog.SourceEntry(summary="", make=lambda config: Texts(texts, **options))
        monkeypatch.setitem(catalog.SOURCES, "texts", entry)
        return texts

    return use


def run(folder, workers=1, **options):
    return prepare(PrepareConfig(source="texts", store=str(folder), workers=workers, **options))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_stores_hold_the_texts_and_their_counts(source, tmp_path):
    source()
    summaries = run(tmp_path / "s")
    assert [summary.path.name for summary in summaries] == ["train", "test"]
    for summary in summaries:
        store = TokenStore.open(summary.path)
        kept = {name: text for name, text in TEXTS.items() if text and "#" not in name}
        assert list(store.names) == list(kept)
        for document, text in enumerate(kept.values()):
            assert ByteVocabulary().decode(store.read(document, 0, 10**6)) == text
        assert store.metadata == summary.metadata
        assert store.metadata.left_out == {
            "documents with the name of an earlier one (left out)": 1,
            "empty documents (left out)": 1,
            "nothing": 1,
            "seen": len(TEXTS),
        }
    assert not [path for path in (tmp_path / "s").iterdir() if path.name.startswith(".")]


def test_any_number_of_workers_writes_the_same_bytes(source, tmp_path, model_path, monkeypatch):
    source()
    monkeypatch.setattr("block_recurrent.data.preparation.workers._GROUP_BYTES", 4000)
    for workers in (1, 2, 3):
        run(tmp_path / str(workers), workers, vocabulary=model_path, splits=("train",))
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


def test_progress_ends_at_the_total(source, tmp_path):
    source()
    seen = []
    config = PrepareConfig(source="texts", store=str(tmp_path / "s"), workers=1)
    prepare(config, progress=lambda done, total: seen.append((done, total)))
    total = 2 * sum(map(len, TEXTS.values()))
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)
    seen.clear()
    prepare(config, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(total // 2, total), (total, total)]


def test_a_finished_store_is_left_alone(source, tmp_path):
    source()
    first = run(tmp_path / "s")
    before = contents(tmp_path / "s")
    again = run(tmp_path / "s", workers=2)
    assert [summary.unchanged for summary in first + again] == [False, False, True, True]
    assert [summary.metadata for summary in again] == [summary.metadata for summary in first]
    assert contents(tmp_path / "s") == before


def test_another_name_of_the_corpus_changes_the_name_alone(source, tmp_path):
    source()
    unnamed = run(tmp_path / "s")
    before = contents(tmp_path / "s")
    named = run(tmp_path / "s", corpus="my texts")
    assert [summary.metadata.name for summary in unnamed] == ["texts", "texts"]
    assert [(summary.metadata.name, summary.unchanged) for summary in named] == [("my texts", True)] * 2
    assert [s.metadata.fingerprint for s in named] == [s.metadata.fingerprint for s in unnamed]
    after = contents(tmp_path / "s")
    assert {path.name for path in before if before[path] != after[path]} == {"store.json"}
    assert TokenStore.open(tmp_path / "s" / "test").metadata == named[1].metadata
    kept = run(tmp_path / "s")  # without a name, the store keeps its own
    assert [summary.metadata.name for summary in kept] == ["my texts", "my texts"]


def test_another_store_is_never_overwritten(source, tmp_path, model_path):
    source()
    run(tmp_path / "s")
    before = contents(tmp_path / "s")
    with pytest.raises(InputError, match=r"train holds another store \(vocabulary"):
        run(tmp_path / "s", vocabulary=model_path)
    source(version=2)
    with pytest.raises(InputError, match="settings version 1, now 2"):
        run(tmp_path / "s")
    source({"other": "text"})
    with pytest.raises(InputError, match="signature"):
        run(tmp_path / "s")
    assert contents(tmp_path / "s") == before


def test_other_files_in_the_output_folder_are_not_touched(source, tmp_path):
    source()
    (tmp_path / "s" / "train").mkdir(parents=True)
    (tmp_path / "s" / "train" / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match="not a finished token store"):
        run(tmp_path / "s")
    assert (tmp_path / "s" / "train" / "thesis.tex").read_text() == "dear"
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot write to .*file"):
        run(tmp_path / "file")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [3, 12, 25, 45])
def test_an_interrupted_run_is_continued(source, tmp_path, monkeypatch, after):
    source()
    monkeypatch.setattr("block_recurrent.data.preparation.workers._GROUP_BYTES", 4000)
    shard = 1 << 14
    real = writer_module.StoreWriter
    monkeypatch.setattr(prepare_module, "StoreWriter", lambda *arguments: real(*arguments, shard=shard))
    run(tmp_path / "whole")
    added, resumed = itertools.count(1), []

    class Dying(real):
        def __init__(self, *arguments):
            super().__init__(*arguments, shard=shard)
            resumed.append(self.resumed)

        def add(self, document):
            if next(added) == after:
                raise Killed
            super().add(document)

    monkeypatch.setattr(prepare_module, "StoreWriter", Dying)
    with pytest.raises(Killed):
        run(tmp_path / "s")
    for path in (tmp_path / "s").iterdir():
        if path.name.startswith("."):
            with pytest.raises(InputError):
                TokenStore.open(path)
    run(tmp_path / "s", workers=2 if after == 25 else 1)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")
    if after == 25:
        assert resumed[1]["records"] > 10


def test_an_input_error_in_a_worker_is_raised(source, tmp_path):
    source(mistake=True)
    for workers in (1, 2):
        with pytest.raises(InputError, match="a mistake in the input"):
            run(tmp_path / str(workers), workers)
    assert not list(multiprocessing.active_children())


def test_a_second_preparation_at_the_same_time_is_refused(source, tmp_path):
    source()
    (tmp_path / "s").mkdir()
    with (tmp_path / "s" / ".prepare.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is preparing this folder"):
            run(tmp_path / "s")
    run(tmp_path / "s")


def test_a_lock_file_that_its_owner_removed_does_not_count(tmp_path, monkeypatch):
    output = StoreOutput(str(tmp_path))
    real = fcntl.flock

    def removed_meanwhile(file, how):
        real(file, how)
        os.unlink(tmp_path / ".prepare.lock")

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with pytest.raises(InputError, match="another process"), output.locked():
        pass


def mount(*arguments):
    if subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")


@pytest.fixture
def small_disk(tmp_path):
    """A small disk that is full even for root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_no_store(source, small_disk, tmp_path):
    source({f"d{index}": os.urandom(40_000).hex() for index in range(5)})
    with pytest.raises(InputError, match=r"cannot finish .*No space left on device.*run the same command"):
        run(small_disk / "s")
    assert not (small_disk / "s" / "train").exists()


def test_a_read_only_folder_is_an_error(source, tmp_path):
    source()
    (tmp_path / "s").mkdir()
    mount("-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path / "s"))
    try:
        with pytest.raises(InputError, match=r"cannot write to .*Read-only file system"):
            run(tmp_path / "s")
    finally:
        subprocess.run(["umount", str(tmp_path / "s")], check=True)


def test_the_error_for_an_unknown_source_lists_all(tmp_path):
    with pytest.raises(InputError, match=r"source = 'nosuch': must be one of .*python_stdlib"):
        prepare(PrepareConfig(source="nosuch", store=str(tmp_path)))


def test_preparing_imports_neither_jax_nor_tensorflow():
    code = "import sys, block_recurrent.data.preparation.prepare, block_recurrent.data.batching.batches\n"
    code += "sys.exit(any(name in sys.modules for name in ('jax', 'tensorflow', 'seqio', 'gin')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_input_without_documents_is_an_error_and_writes_nothing(source, tmp_path):
    source({"empty": "", "also empty": ""})
    for _ in range(2):
        with pytest.raises(InputError, match=r"source texts: its input has no document; it has .* empty documents"):
            run(tmp_path / "a" / "b" / "s")
    assert not list(tmp_path.iterdir())
    (tmp_path / "s").mkdir()
    with pytest.raises(InputError, match="no document"):
        run(tmp_path / "s")
    assert not list((tmp_path / "s").iterdir())


def test_an_empty_split_next_to_others_is_written(source, tmp_path, monkeypatch):
    source()
    real = Texts.documents
    monkeypatch.setattr(Texts, "documents", lambda self, record, counts: real(self, record, counts))
    monkeypatch.setattr(Texts, "records", lambda self, file, split, counts: iter(RECORDS if split == "test" else ()))
    for unchanged in (False, True):
        assert [summary.unchanged for summary in run(tmp_path / "s")] == [unchanged] * 2
    assert [len(TokenStore.open(tmp_path / "s" / split)) for split in ("train", "test")] == [0, 1]


RECORDS = [Record("one", "text", 4)]


def test_the_rules_version_is_in_the_store_and_older_stores_are_accepted(source, tmp_path, monkeypatch):
    source()
    (first, _) = run(tmp_path / "s")
    assert first.metadata.settings["rules_version"] == first.metadata.rules_version == 1
    before = contents(tmp_path / "s")
    monkeypatch.setattr(Texts, "rules_version", 2)
    for summary in run(tmp_path / "s"):
        assert summary.unchanged
        assert "written by rules of version 1; source texts has version 2 now" in summary.warnings[0]
    assert contents(tmp_path / "s") == before
    (summary, _) = run(tmp_path / "new")
    assert summary.metadata.rules_version == 2
    assert not summary.warnings
    source(version=2)
    with pytest.raises(InputError, match=r"settings rules version 1, now 2; settings version 1, now 2"):
        run(tmp_path / "s")


def test_an_interrupted_preparation_by_older_rules_begins_again(source, tmp_path, monkeypatch):
    source()
    with monkeypatch.context() as patch:
        patch.setattr(StoreOutput, "publish", lambda *_: None)
        run(tmp_path / "s", splits=("train",))
    monkeypatch.setattr(Texts, "rules_version", 2)
    (summary,) = run(tmp_path / "s", splits=("train",))
    assert summary.metadata.rules_version == 2
