"""Several segments in one step: truncated backpropagation through time (`TrainConfig.backprop_segments`)."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from block_recurrent.config import ModelConfig
from block_recurrent.data.batching.batches import read_step
from block_recurrent.data.batching.training_data import open_training
from block_recurrent.errors import InputError
from block_recurrent.parallel.sharding import make_mesh
from block_recurrent.training.loop import train
from block_recurrent.training.step import SegmentBatch, init_train_state, train_step
from block_recurrent.training.step_program import lower_train_step
from block_recurrent.trees import named_leaves
from tests.support.architectures import CACHED, LSTM, WINDOW, random_tokens
from tests.support.resumed_runs import assert_resumed_equals_whole
from tests.support.workdirs import QUIET, run_config

SEGMENTS, LENGTH = 4, 2 * WINDOW
# Keeps the gradients as its state and changes nothing.
GRADIENTS: Any = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda updates, state, params=None: (jax.tree.map(jnp.zeros_like, updates), updates),
)


def long_batch(config: ModelConfig, rows: int = 2) -> SegmentBatch:
    """Returns one segment of four times the length; row 1 ends within the third segment."""
    tokens = random_tokens(config, rows, SEGMENTS * LENGTH + 1)
    weights = jnp.ones((rows, SEGMENTS * LENGTH)).at[1, 2 * LENGTH + 3 :].set(0)
    return SegmentBatch(tokens[:, :-1], tokens[:, 1:], weights, jnp.array([True, False]))


def divided(batch: SegmentBatch, segments: int, starts: np.ndarray | None = None) -> SegmentBatch:
    """Divides the segment of a batch into several; only the first starts a document unless `starts` says more."""
    if starts is None:
        starts = np.zeros((len(batch.tokens), segments), bool)
        starts[:, 0] = batch.start_of_document

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(len(x), segments, -1)

    return SegmentBatch(split(batch.tokens), split(batch.targets), split(batch.weights), jnp.asarray(starts))


def run_step(config: ModelConfig, batch: SegmentBatch, rows: int = 2, **step: Any) -> tuple[Any, Any]:
    """Takes a step from a state that is not the initial one; returns the next state and the metrics."""
    state = init_train_state(config, GRADIENTS, seed=0, batch_size=rows)
    carried = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), state.model_state)
    return jax.jit(functools.partial(train_step, config, GRADIENTS, **step))(
        dataclasses.replace(state, model_state=carried), batch
    )


def assert_near(ours: Any, expected: Any) -> None:
    """Compares two trees up to 1e-6 of the norm of all leaves together, and up to 1e-5 of that of each leaf."""
    norms = {name: float(np.linalg.norm(leaf)) for name, leaf in named_leaves(expected).items()}
    differences = jax.tree.map(lambda a, b: a - b, ours, expected)
    assert optax.tree.norm(differences) <= 1e-6 * optax.tree.norm(expected)
    for name, leaf in named_leaves(differences).items():
        assert np.linalg.norm(leaf) <= 1e-5 * norms[name], name


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CACHED["fixed_skip"], id="fixed_skip"),
        *(
            pytest.param(config, id=name, marks=pytest.mark.slow)
            for name, config in {
                **{n: CACHED[n] for n in ("slide", "lstm_dual", "feedback_fixed_skip")},
                "lstm": LSTM,
            }.items()
        ),
    ],
)
def test_segments_in_one_step_equal_one_long_segment(config):
    """Without the gradients between segments, those of the recurrent layer would differ in the first digit."""
    batch = long_batch(config)
    (expected, one), (state, several) = run_step(config, batch), run_step(config, divided(batch, SEGMENTS))
    np.testing.assert_allclose(several.row_losses, one.row_losses, rtol=1e-6)
    assert several.tokens == one.tokens
    assert_near(state.opt_state, expected.opt_state)
    assert_near(state.model_state, expected.model_state)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), several.gates, one.gates)


@pytest.mark.slow
def test_micro_batches_of_several_segments_equal_the_whole_batch():
    config = CACHED["lstm_dual"]
    batch = divided(long_batch(config), SEGMENTS)
    (whole, _), (parts, _) = run_step(config, batch), run_step(config, batch, accumulate_steps=2)
    assert_near(parts.opt_state, whole.opt_state)
    assert_near(parts.model_state, whole.model_state)


@pytest.mark.slow
def test_documents_that_start_inside_a_step_are_independent():
    """A row with two documents is the same as two rows with one document each, for the loss and its gradients."""
    config = CACHED["fixed_skip"]
    whole = dataclasses.replace(long_batch(config), weights=jnp.ones((2, SEGMENTS * LENGTH)))
    starts = np.array([[True, False, True, False]] * 2)
    batch = divided(whole, SEGMENTS, starts)
    rows = jax.tree.map(lambda x: x.reshape(2 * len(x), 2, *x.shape[2:]), batch)
    (state, metrics), (expected, separate) = run_step(config, batch), run_step(config, rows, rows=4)
    np.testing.assert_allclose(metrics.row_losses, separate.row_losses.reshape(2, 2).sum(axis=1), rtol=1e-6)
    assert_near(state.opt_state, expected.opt_state)
    ends = jax.tree.map(lambda x: x[1::2], expected.model_state)  # of the second documents
    assert_near(state.model_state, ends)


@pytest.mark.slow
def test_memory_is_that_of_one_segment(store_folder):
    run = run_config(store_folder)
    data = dataclasses.replace(run.data, segment_length=256, batch_size=4)
    several = dataclasses.replace(run, data=data, train=dataclasses.replace(run.train, backprop_segments=4))
    one = dataclasses.replace(run, data=dataclasses.replace(data, segment_length=1024))
    temporaries = [_temporaries(each) for each in (several, one, dataclasses.replace(run, data=data))]
    assert temporaries[0] < 0.45 * temporaries[1]
    assert temporaries[0] < 1.5 * temporaries[2]


def _temporaries(run: Any) -> int:
    analysis = lower_train_step(run, make_mesh(run.mesh)).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def test_a_step_reads_the_next_segments_of_the_schedule(store_folder):
    reader = open_training(run_config(store_folder).data, vocab_size=260).reader()
    batch = read_step(reader, 5, 3)
    assert batch.tokens.shape == (3, 3, 16)
    for number in range(3):
        alone = reader.read(15 + number)
        for field in dataclasses.fields(batch):
            np.testing.assert_array_equal(getattr(batch, field.name)[:, number], getattr(alone, field.name))
    assert any(read_step(reader, step, 3).start_of_document[:, 1:].any() for step in range(9))  # inside a step
    np.testing.assert_array_equal(read_step(reader, 5).tokens, reader.read(5).tokens)


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(store_folder, tmp_path):
    run = run_config(store_folder, num_steps=6, eval_every=6, checkpoint_every=3, backprop_segments=2)
    _, lines = assert_resumed_equals_whole(run, tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 7))
    other = dataclasses.replace(run, train=dataclasses.replace(run.train, backprop_segments=1))
    with pytest.raises(InputError, match=r"config.train.backprop_segments: 2 there, 1 asked for"):
        train(other, epath.Path(tmp_path / "whole"), QUIET)


@pytest.mark.slow
def test_one_block_per_segment_trains_the_update_of_the_states(store_folder):
    """With one segment in a step this is refused: the update would get no gradient."""
    run = run_config(store_folder, backprop_segments=2)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, segment_length=8))
    assert run.tokens_per_step == 3 * 8 * 2
    batch = divided(long_batch(run.model), 2 * SEGMENTS)
    state, _ = run_step(dataclasses.replace(run.model, dropout_rate=0.0, attention_dropout_rate=0.0), batch)
    update = named_leaves(state.opt_state["layers"]["layer_01"]["states"]["cell"])
    assert all(np.any(gradient) for gradient in update.values())


@pytest.mark.slow
def test_every_segment_has_its_own_dropout():
    config = dataclasses.replace(CACHED["slide"], dropout_rate=0.3)
    tokens = jnp.tile(random_tokens(config, 1, LENGTH), (2, 1))[:, None].repeat(2, axis=1)
    batch = SegmentBatch(tokens, tokens, jnp.ones(tokens.shape), jnp.ones((2, 2), bool))
    only_first = dataclasses.replace(batch, weights=batch.weights.at[:, 1].set(0))
    (_, both), (_, first) = run_step(config, batch), run_step(config, only_first)
    assert abs(float(both.row_losses[0] - 2 * first.row_losses[0])) > 1e-3
