"""Exports, and new runs that start from the parameters of another run."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError
from block_recurrent.interop.meliad import convert_params, model_config
from block_recurrent.interop.safetensors import load_export
from block_recurrent.model.language_model import abstract_params
from block_recurrent.training.init_from import load_initial_params
from block_recurrent.training.loop import train
from block_recurrent.training.metric_writer import read_metrics
from block_recurrent.training.saved_run import SavedRun
from tests.support.workdirs import QUIET, run_config

FIXTURES = Path(__file__).parents[1] / "fixtures"
FIXTURE = FIXTURES / "bias_single.npz"
WITH_MEMORY = FIXTURES / "memory_with_recurrence.npz"


@pytest.fixture(scope="module")
def trained(store_folder, tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("trained"))
    run = run_config(store_folder, num_steps=4, eval_every=100, checkpoint_every=2)
    train(run, workdir, QUIET)
    return run, workdir


def fingerprint(run):
    return TokenStore.open(Path(run.data.store) / "train").vocabulary.fingerprint


def test_an_export_equals_its_checkpoint(trained, tmp_path):
    _, workdir = trained
    saved = SavedRun.load(workdir)
    saved.export(epath.Path(tmp_path / "out"))
    exported = load_export(epath.Path(tmp_path / "out"))
    assert exported.model == saved.config.model
    assert exported.step == 4
    assert exported.vocabulary["fingerprint"] == saved.vocabulary_fingerprint
    jax.tree.map(np.testing.assert_array_equal, exported.params, dict(saved.params))
    with pytest.raises(InputError, match="is there already"):
        saved.export(epath.Path(tmp_path / "out"))
    content = (tmp_path / "out" / "params.safetensors").read_bytes()
    (tmp_path / "out" / "params.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not an export that can be read"):
        load_export(epath.Path(tmp_path / "out"))


def test_an_older_checkpoint_is_read_by_its_folder(trained):
    _, workdir = trained
    older = SavedRun.load(str(workdir / "checkpoints" / "2"))
    assert older.step == 2
    with pytest.raises(InputError, match="no checkpoint of step 3; have: 2, 4"):
        SavedRun.load(Path(workdir) / "checkpoints" / "3")


@pytest.mark.slow
def test_a_new_run_starts_from_the_parameters_of_another(trained, tmp_path):
    run, workdir = trained
    SavedRun.load(workdir).export(epath.Path(tmp_path / "out"))
    expected = [line for line in read_metrics(workdir) if line["group"] == "validation"][-1]["bits_per_byte"]
    other = dataclasses.replace(run, data=dataclasses.replace(run.data, seed=9))
    for source in (workdir, workdir / "checkpoints" / "4", epath.Path(tmp_path / "out")):
        work = epath.Path(tmp_path / f"from_{source.name}")
        result = train(other, work, QUIET, init_from=source)
        assert result.first_evaluation["bits_per_byte"] == expected
        assert result.last_evaluation["step"] == 4


def test_another_model_or_vocabulary_is_refused_with_the_reasons(trained, tmp_path):
    run, workdir = trained
    more = dataclasses.replace(run.model, num_states=7)
    with pytest.raises(InputError, match=r"num_states = 4 there, 7 here \(every state vector has parameters"):
        load_initial_params(workdir, more, vocabulary=fingerprint(run))
    with pytest.raises(InputError, match="the same token ids mean other texts"):
        load_initial_params(workdir, run.model, vocabulary="another")
    with pytest.raises(InputError, match="no such file or folder"):
        load_initial_params(epath.Path(tmp_path / "nothing"), run.model, vocabulary="")


def test_a_memory_of_another_size_has_the_same_parameters():
    arrays = np.load(WITH_MEMORY)
    config = model_config(json.loads(str(arrays["config.json"])))
    expected = load_initial_params(epath.Path(WITH_MEMORY), config, vocabulary="")
    larger = dataclasses.replace(config, memory_size=2 * config.memory_size, memory_retrieval="exact")
    loaded = load_initial_params(epath.Path(WITH_MEMORY), larger, vocabulary="")
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)
    assert jax.tree.structure(loaded) == jax.tree.structure(abstract_params(larger))
    with pytest.raises(InputError, match=r"memory_layers = \[\d+\] there, \[\] here"):
        load_initial_params(epath.Path(WITH_MEMORY), dataclasses.replace(config, memory_layers=()), vocabulary="")


def test_official_parameters_are_read_from_arrays_and_from_official_checkpoints(tmp_path):
    arrays = dict(np.load(FIXTURE))
    config = model_config(json.loads(str(arrays["config.json"])))
    flat = {name.removeprefix("param/"): array for name, array in arrays.items() if name.startswith("param/")}
    expected = convert_params(flat, config)
    from_arrays = load_initial_params(epath.Path(FIXTURE), config, vocabulary="")
    jax.tree.map(np.testing.assert_array_equal, from_arrays, expected)

    target: dict = {}
    for name, array in flat.items():
        *folders, leaf = name.split("/")
        here = target
        for folder in folders:
            here = here.setdefault(folder, {})
        here[leaf] = array
    with ocp.PyTreeCheckpointer() as checkpointer:  # the layout of its trainer
        checkpointer.save(tmp_path / "checkpoint_7" / "tstate", {"target": target, "state": {"step": np.int32(7)}})
    from_checkpoint = load_initial_params(epath.Path(tmp_path / "checkpoint_7"), config, vocabulary="")
    jax.tree.map(np.testing.assert_array_equal, from_checkpoint, expected)
    with pytest.raises(InputError, match="num_layers"):
        load_initial_params(epath.Path(FIXTURE), dataclasses.replace(config, num_layers=9), vocabulary="")
