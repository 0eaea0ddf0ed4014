"""A run, an export and a store keep a copy of their vocabulary's file; another vocabulary is refused by its hash."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from etils import epath
from rich.console import Console

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.recorded_vocabulary import VOCABULARY_FILE, keep_vocabulary, load_recorded_vocabulary
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.vocabulary import ByteVocabulary, load_vocabulary
from block_recurrent.errors import InputError
from block_recurrent.training.loop import train
from tests.support.commands import Ended, run_command
from tests.support.vocabularies import prose, train_pieces
from tests.support.workdirs import QUIET, run_config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns a folder with a store and a run, made in another working directory with a relative vocabulary."""
    folder = tmp_path_factory.mktemp("made")
    there = folder / "there"
    there.mkdir()
    train_pieces(there / "own")
    train_pieces(folder / "other", vocab_size=55)
    lines = [json.dumps({"name": f"d{n}", "text": prose(n, 30)}) for n in range(12)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(there)
        source: dict[str, Any] = {"source": "jsonl", "input": str(folder / "texts.jsonl"), "name_field": "name"}
        shares: dict[str, Any] = {"validation_percent": 30, "test_percent": 0}
        prepare(PrepareConfig(**source, **shares, store=str(folder / "store"), vocabulary="own.model", workers=1))
    (there / "own.model").rename(folder / "moved.model")
    train(run_config(folder / "store", num_steps=1), epath.Path(folder / "run"), QUIET)
    return folder


@pytest.fixture
def copied(made, tmp_path, monkeypatch):
    """Returns a copy that a test may change."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "copy"


def hashes(*models: Path) -> list[str]:
    return [load_vocabulary(str(model)).fingerprint for model in models]


def assert_refused(ended: Ended, *parts: str) -> None:
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    for part in parts:
        assert part in ended.err


def without_copies(folder: Path) -> None:
    """Removes the copies, as in a store and a run of an earlier version."""
    for copy in folder.rglob(VOCABULARY_FILE):
        copy.unlink()


def test_every_command_finds_the_copies(copied):
    model = (copied / "moved.model").read_bytes()
    for folder in ("store/train", "store/validation", "run"):
        assert (copied / folder / VOCABULARY_FILE).read_bytes() == model
    (copied / "moved.model").unlink()
    assert run_command("score", "--workdir", copied / "run", "--text", "the river").code == 0
    assert run_command("inspect", copied / "store" / "train", "--document", "0").out.startswith(prose(1, 30)[:3])
    exported = copied / "exported"
    assert run_command("export", "--workdir", copied / "run", "--out", exported).code == 0
    assert (exported / VOCABULARY_FILE).read_bytes() == model
    assert json.loads((exported / "config.json").read_text())["vocabulary"]["spec"] == VOCABULARY_FILE
    scored = [
        run_command("score", *given, "--text", "the day", "--jsonl", "-")
        for given in (("--model", exported), ("--workdir", copied / "run"))
    ]
    assert scored[0].code == 0
    assert scored[0].out == scored[1].out
    without_copies(copied / "store")
    (copied / "run" / VOCABULARY_FILE).unlink()
    fields = (f"store='{copied}/store'", "segment_length=16", "batch_size=3")
    data = [f"--gin-param=DataConfig.{field}" for field in fields]
    compared = ("compare", exported, copied / "run", "--out", copied / "c", *data)
    assert run_command(*compared).code == 0  # with the copy of the export


def test_a_moved_vocabulary_is_named_and_another_is_refused(copied):
    without_copies(copied)
    own, other = hashes(copied / "moved.model", copied / "other.model")
    missing = "'own.model': no such file", f"created with fingerprint {own}", "--vocabulary FILE"
    generate = ("generate", "--workdir", copied / "run", "--prompt", "the river", "--num-tokens", 2)
    data = ("--gin-param", f"DataConfig.store='{copied}/store'")
    compare = ("compare", copied / "run", copied / "run", "--out", copied / "out", *data)
    for command in (generate, compare):
        assert_refused(run_command(*command), *missing)
    for command in (generate, ("inspect", copied / "store" / "train", "--document", "0")):
        different = run_command(*command, "--vocabulary", copied / "other.model")
        assert_refused(different, "--vocabulary", own, other, "prepare the data and train again")
        assert run_command(*command, "--vocabulary", copied / "moved.model").code == 0
    assert_refused(run_command(*command, "--vocabulary", copied / "nowhere"), "no such file")


def test_an_export_without_its_vocabulary_warns(copied):
    without_copies(copied)
    export = ("export", "--workdir", copied / "run", "--out")
    ended = run_command(*export, copied / "a")
    assert ended.code == 0
    assert f"warning: the export has no {VOCABULARY_FILE}" in ended.err
    assert not (copied / "a" / VOCABULARY_FILE).exists()
    assert_refused(run_command(*export, copied / "b", "--vocabulary", copied / "other.model"), "has fingerprint")
    assert not (copied / "b").exists()
    assert run_command(*export, copied / "b", "--vocabulary", copied / "moved.model").code == 0
    assert (copied / "b" / VOCABULARY_FILE).exists()


def test_a_run_of_an_earlier_version_continues_and_keeps_a_found_vocabulary(copied, capsys):
    without_copies(copied)
    run = run_config(copied / "store", num_steps=1)
    said = io.StringIO()
    train(run, epath.Path(copied / "run"), Console(file=said, width=1000))
    assert any(line.startswith("warning: the run keeps no vocabulary") for line in said.getvalue().splitlines())
    with pytest.raises(InputError, match="has fingerprint"):
        train(run, epath.Path(copied / "run"), QUIET, vocabulary=str(copied / "other.model"))
    train(run, epath.Path(copied / "run"), QUIET, vocabulary=str(copied / "moved.model"))
    assert (copied / "run" / VOCABULARY_FILE).read_bytes() == (copied / "moved.model").read_bytes()


def test_a_store_prepared_again_from_the_moved_vocabulary_continues_the_run(copied):
    shutil.rmtree(copied / "store")
    source: dict[str, Any] = {"source": "jsonl", "input": str(copied / "texts.jsonl"), "name_field": "name"}
    shares: dict[str, Any] = {"validation_percent": 30, "test_percent": 0, "vocabulary": str(copied / "moved.model")}
    prepare(PrepareConfig(**source, **shares, store=str(copied / "store"), workers=1))
    train(run_config(copied / "store", num_steps=1), epath.Path(copied / "run"), QUIET)


def test_the_copy_is_read_first_and_a_damaged_one_is_passed_over(copied):
    recorded = TokenStore.open(copied / "store" / "train").vocabulary
    folder = copied / "run"
    found = load_recorded_vocabulary("nowhere", recorded.fingerprint, folders=[copied, folder])
    assert found.spec == str(folder / VOCABULARY_FILE)
    (folder / VOCABULARY_FILE).write_bytes(b"damaged")
    moved = str(copied / "moved.model")
    assert load_recorded_vocabulary(moved, recorded.fingerprint, folders=[folder]).spec == moved
    with pytest.raises(InputError, match=r"not a SentencePiece model.*'nowhere': no such file.*--vocabulary FILE"):
        load_recorded_vocabulary("nowhere", recorded.fingerprint, folders=[folder])
    with pytest.raises(InputError, match="move that file away"):
        keep_vocabulary(load_vocabulary(moved), folder)
    assert (folder / VOCABULARY_FILE).read_bytes() == b"damaged"


def test_bytes_need_no_file(byte_run, tmp_path):
    assert not (byte_run / VOCABULARY_FILE).exists()
    keep_vocabulary(ByteVocabulary(), tmp_path)
    assert not list(tmp_path.iterdir())
    score = ("score", "--workdir", byte_run, "--text", "3 times", "--vocabulary")
    assert run_command(*score, "bytes").code == 0
    train_pieces(tmp_path / "other", vocab_size=55)
    (other,) = hashes(tmp_path / "other.model")
    assert_refused(run_command(*score, tmp_path / "other.model"), ByteVocabulary.fingerprint, other)
