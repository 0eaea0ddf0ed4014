"""`--model`: an export gives bit for bit the output of its run; the card and the records that come with it."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath
from pyarrow import parquet

from block_recurrent import Generator
from block_recurrent.data.vocabulary import ByteVocabulary
from block_recurrent.errors import InputError
from block_recurrent.evaluation.model_card import CardText, card_scores, write_card
from block_recurrent.interop import model_folder
from block_recurrent.interop.safetensors import export_params
from block_recurrent.model.language_model import init_params
from block_recurrent.report import page as page_module
from block_recurrent.training.saved_run import SavedRun
from tests.support.architectures import CACHED
from tests.support.commands import run_command
from tests.support.model_folders import check_complete, check_scores
from tests.support.workdirs import run_config, save_untrained

CARD = """
title = "A tiny model"
summary = "As it was before the first step."
license = "apache-2.0"
languages = ["en"]
training_text = "Products of small numbers."
text_licences = ["all of it: CC0-1.0"]
limits = ["It has learned nothing."]
"""
# Lines as `train` writes them; no `evaluate` scores the validation split.
METRICS = [
    {"step": 0, "group": "validation", "bits_per_byte": 9.5, "tokens": 90, "documents": 3, "complete": False},
    {"step": 1, "group": "train", "bits_per_byte": 9.25},
    {"step": 1, "group": "speed", "tokens_per_second": 5.5},
    {"step": 1, "group": "validation", "bits_per_byte": 8.625, "tokens": 1953, "documents": 9, "complete": True},
]
PROMPT = "3 times 4 is 12; 3 times 5 is 15; 3 times 6"  # longer than two segments


@pytest.fixture(scope="module")
def made(store_folder, tmp_path_factory):
    """A run with an evaluation of its test split, and its export."""
    folder = tmp_path_factory.mktemp("made")
    save_untrained(run_config(store_folder), folder / "run")
    (folder / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in METRICS))
    assert run_command("evaluate", "--workdir", folder / "run", "--split", "test", "--tokens").code == 0
    (folder / "card.toml").write_text(CARD)
    ended = run_command(
        "export", "--workdir", folder / "run", "--out", folder / "sample", "--card", folder / "card.toml"
    )
    assert ended.code == 0
    assert ended.err == ""
    return folder


@pytest.fixture
def packaged(made, monkeypatch, tmp_path):
    """Lets the export be the packaged model `sample`, and works in an empty folder."""
    monkeypatch.setattr(model_folder, "PACKAGED", epath.Path(made))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("packaged")
def test_generate_and_score_as_the_run(made):
    sampled = ("--prompt", PROMPT, "--num-tokens", 40, "--top-p", 0.9, "--seed", 3, "--jsonl", "-")
    scored = ("--text", PROMPT, "--text", "5 times", "--jsonl", "-")
    for command in (("generate", *sampled), ("score", *scored)):
        by_run, by_folder, by_name = (
            run_command(*command, *model)
            for model in (("--workdir", made / "run"), ("--model", made / "sample"), ("--model", "sample"))
        )
        assert by_run.code == 0
        assert by_run.out == by_folder.out == by_name.out
        assert by_run.records


def test_a_generator_of_an_export_has_the_parameters_and_the_states_of_the_run(made, tmp_path):
    ours, theirs = Generator.from_folder(made / "sample"), Generator.from_workdir(made / "run")
    assert (ours.config, ours.segment_length) == (theirs.config, theirs.segment_length)
    jax.tree.map(np.testing.assert_array_equal, ours.params, dict(theirs.params))
    theirs.save_state(tmp_path / "state", theirs.prefill([PROMPT]))
    state = ours.load_state(tmp_path / "state")  # refused for another model
    jax.tree.map(np.testing.assert_array_equal, state, ours.prefill([PROMPT]))


@pytest.mark.usefixtures("packaged")
def test_evaluate_as_the_run(made, store_folder, tmp_path):
    theirs = made / "run" / "evaluation" / "store" / "test" / "step_1"
    data = ("--split", "test", "--gin-param", f"DataConfig.store='{store_folder}'")  # the export has the batch shape
    ended = run_command("evaluate", "--model", "sample", *data)
    assert ended.code == 2
    assert "--out" in ended.err
    ended = run_command("evaluate", "--model", "sample", *data, "--tokens", "--out", tmp_path / "scores")
    assert ended.code == 0, ended.err
    nats = [
        parquet.read_table(folder / "tokens.parquet")["nats"].to_numpy() for folder in (theirs, tmp_path / "scores")
    ]
    np.testing.assert_array_equal(*nats)
    ours, run = (json.loads((folder / "scores.json").read_text()) for folder in (tmp_path / "scores", theirs))
    for record in (ours, run):
        del record["provenance"], record["subject"]["name"], record["subject"]["path"]
    assert ours == run
    ended = run_command("evaluate", "--model", "sample", "--out", tmp_path / "x")
    assert ended.code == 2
    assert "DataConfig: store not given" in ended.err


@pytest.mark.usefixtures("packaged")
def test_evaluate_refuses_another_vocabulary(made, store_folder, tmp_path):
    shutil.copytree(made / "sample", tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["vocabulary"]["fingerprint"] = "0" * 64
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    arguments = ("--split", "test", "--gin-param", f"DataConfig.store='{store_folder}'")
    ended = run_command("evaluate", "--model", tmp_path / "other", *arguments)
    assert ended.code == 2
    assert "fingerprint" in ended.err
    assert not (tmp_path / "other" / "evaluation" / "store" / "test" / ".partial").exists()


@pytest.mark.usefixtures("packaged")
def test_report_shows_the_results_that_an_export_carries(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "write_pictures", lambda *arguments: None)
    assert run_command("report", "--model", "sample", "--out", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert '<section id="scores"' in page
    assert '<section id="learning"' in page


def test_an_export_is_complete_and_its_card_equals_its_records(made, tmp_path):
    check_complete(made / "sample")
    text = (made / "sample" / "README.md").read_text()
    assert len((made / "sample" / "metrics.jsonl").read_text().splitlines()) == 2  # the evaluations alone
    row = "| validation | 8.6250 | - | 1,953 | 9 | whole split | [metrics.jsonl](metrics.jsonl) |"
    assert sum(line.endswith(row) for line in text.splitlines()) == 1
    for line in ("# A tiny model", "* all of it: CC0-1.0", "* It has learned nothing."):
        assert line in text.splitlines()
    record = made / "sample" / "evaluation" / "store" / "test" / "step_1" / "scores.json"
    scores = json.loads(record.read_text())
    shutil.copytree(made / "sample", tmp_path / "wrong")
    scores["bits_per_byte"]["value"] += 0.001
    (tmp_path / "wrong" / record.relative_to(made / "sample")).write_text(json.dumps(scores))
    with pytest.raises(AssertionError):
        check_scores(tmp_path / "wrong")


def test_scores_of_other_parameters_stay_out_of_the_card(made, tmp_path):
    saved = SavedRun.load(made / "run")
    changed = dataclasses.replace(saved, params=jax.tree.map(lambda leaf: leaf + 1, saved.params))
    scores = write_card(epath.Path(tmp_path), changed, CardText(), "changed")
    assert [score.split for score in scores] == ["validation"]
    assert not (tmp_path / "evaluation").exists()


def test_a_split_that_evaluate_scored_hides_its_score_of_training_in_the_same_store_alone(made, tmp_path):
    shutil.copytree(made / "sample", tmp_path / "copy")
    metrics = Path(tmp_path / "copy" / "metrics.jsonl")
    metrics.write_text(metrics.read_text().replace("validation", "test"))
    for store, files in (("store", ["scores.json"]), ("other", ["scores.json", "metrics.jsonl"])):
        scores = card_scores(epath.Path(tmp_path / "copy"), 1, eval_store=store)
        assert [Path(score.file).name for score in scores] == files


def test_an_export_without_scores_warns(byte_run, tmp_path):
    ended = run_command("export", "--workdir", byte_run, "--out", tmp_path / "out")
    assert ended.code == 0
    assert "warning: README.md has no scores" in ended.err
    assert "No evaluation of this checkpoint was recorded." in (tmp_path / "out" / "README.md").read_text()


def test_a_failing_export_leaves_nothing(made, tmp_path, monkeypatch):
    def full(saved: SavedRun, folder: epath.Path, vocabulary: object = None) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SavedRun, "export", full)
    ended = run_command("export", "--workdir", made / "run", "--out", tmp_path / "a" / "b")
    assert ended.code == 2
    assert "No space left" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_another_export_is_never_overwritten(made, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    ended = run_command("export", "--workdir", made / "run", "--out", tmp_path)
    assert ended.code == 2
    assert "README.md is there already" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_an_export_of_a_later_version_is_refused(made, tmp_path):
    shutil.copytree(made / "sample", tmp_path / "later")
    config = Path(tmp_path / "later" / "config.json")
    config.write_text(config.read_text().replace("export 2", "export 3"))
    with pytest.raises(InputError, match="'block_recurrent export 3'; this version reads: block_recurrent export 1, "):
        Generator.from_folder(tmp_path / "later")


def test_an_older_export_has_no_batch_shape(made, tmp_path):
    shutil.copytree(made / "sample", tmp_path / "older")
    shutil.rmtree(tmp_path / "older" / "evaluation")
    path = Path(tmp_path / "older" / "config.json")
    config = json.loads(path.read_text())
    del config["training"]
    path.write_text(json.dumps(config | {"format": "block_recurrent export 1"}))
    generator, reference = Generator.from_folder(tmp_path / "older"), Generator.from_folder(made / "sample")
    assert generator.segment_length > len(PROMPT) > reference.segment_length
    (ours,), (theirs,) = generator.score([PROMPT]), reference.score([PROMPT])
    np.testing.assert_allclose(ours.nats, theirs.nats, rtol=0, atol=1e-5)
    ended = run_command("evaluate", "--model", tmp_path / "older")
    assert "DataConfig: store, segment_length, batch_size not given" in ended.err


def test_without_a_window_the_segment_length_must_be_recorded(tmp_path):
    config = dataclasses.replace(CACHED["slide"], vocab_size=260, window_length=None)
    folder, params = epath.Path(tmp_path / "vanilla"), init_params(config, jax.random.key(0))
    vocabulary = {"spec": "bytes", "fingerprint": ByteVocabulary.fingerprint}
    export_params(folder, config=config, params=params, step=0, vocabulary=vocabulary, trained_on=(), training={})
    with pytest.raises(InputError, match="which a model without a window needs; export the run again"):
        Generator.from_folder(folder)


def test_with_an_external_memory_the_segment_length_must_be_recorded_or_given(tmp_path):
    memory: Any = {"memory_layers": (1,), "memory_size": 32, "memory_neighbors": 4}
    config = dataclasses.replace(CACHED["slide"], vocab_size=260, **memory)
    folder, params = epath.Path(tmp_path / "memorizing"), init_params(config, jax.random.key(0))
    vocabulary = {"spec": "bytes", "fingerprint": ByteVocabulary.fingerprint}
    export_params(folder, config=config, params=params, step=0, vocabulary=vocabulary, trained_on=(), training={})
    with pytest.raises(InputError, match=r"which a model with an external memory needs: .*pass --segment-length"):
        Generator.from_folder(folder)
    assert Generator.from_folder(folder, segment_length=16).segment_length == 16
    with pytest.raises(InputError, match=r"segment_length = 24: must divide ModelConfig.memory_size = 32"):
        Generator.from_folder(folder, segment_length=24)


def test_without_an_external_memory_there_is_no_segment_length_to_choose(made):
    ended = run_command("score", "--model", made / "sample", "--text", "some text", "--segment-length", 16)
    assert ended.code == 2
    assert "--segment-length 16: only for a model with an external memory" in ended.err
