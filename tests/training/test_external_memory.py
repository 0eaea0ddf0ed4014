"""Runs of models with an external memory: resumed exactly, evaluated in segments of the length they were asked for."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from block_recurrent.config import MeshConfig, RunConfig
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError
from block_recurrent.evaluation import ablations
from block_recurrent.evaluation.state_report import make_state_reports
from block_recurrent.model.language_model import init_params
from block_recurrent.parallel.sharding import make_mesh
from block_recurrent.training.evaluator import evaluate
from tests.support.resumed_runs import assert_resumed_equals_whole
from tests.support.workdirs import run_config

SEGMENT, SIZE = 16, 32


def memory_run(store_folder: Any, **settings: Any) -> RunConfig:
    run = run_config(store_folder, **settings)
    memory: Any = {"memory_layers": (0, 1), "memory_size": SIZE, "memory_neighbors": 4}
    return dataclasses.replace(run, model=dataclasses.replace(run.model, **memory))


@pytest.mark.slow
@pytest.mark.parametrize("backprop_segments", [1, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(store_folder, tmp_path, backprop_segments):
    settings: Any = {"num_steps": 6, "eval_every": 6, "checkpoint_every": 3, "backprop_segments": backprop_segments}
    run = memory_run(store_folder, **settings)
    state, _ = assert_resumed_equals_whole(run, tmp_path)
    assert all(np.any(layer.memory_values) for layer in state.model_state.layers)


@pytest.mark.slow
def test_the_rows_of_an_evaluation_do_not_change_its_segments(store_folder):
    """Without a memory idle rows become longer segments; with one, that would change the result."""
    run = memory_run(store_folder)
    store = TokenStore.open(store_folder / "validation")
    params = init_params(run.model, jax.random.key(0))
    mesh = make_mesh(MeshConfig(data=1))

    def nats(batch_size: int, segment_length: int) -> float:
        return evaluate(run.model, params, store, mesh=mesh, batch_size=batch_size, segment_length=segment_length).nats

    expected = nats(3, SEGMENT)
    assert nats(40, SEGMENT) == pytest.approx(expected, rel=1e-6)
    assert nats(3, 2 * SEGMENT) != pytest.approx(expected, rel=1e-5)


def test_studies_that_run_block_by_block_are_left_out(store_folder):
    run = memory_run(store_folder, state_report_every=5)
    store = TokenStore.open(store_folder / "validation")
    planned, skipped = ablations.plan(run.model, store, reset_tokens=SEGMENT, frozen_tokens=SEGMENT)
    assert [item.name for item in planned] == ["window_only"]
    assert skipped.keys() == {"reset", "frozen", "initial", "shuffled"}
    with pytest.raises(InputError, match=r"state_report_every = 5: must be None .* ModelConfig.memory_layers"):
        make_state_reports(run)
    feedback = dataclasses.replace(run.model, feedback=True)
    assert len(ablations.plan(feedback, store, reset_tokens=SEGMENT, frozen_tokens=SEGMENT)[0]) == 5
