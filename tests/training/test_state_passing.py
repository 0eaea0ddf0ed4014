"""Training rows that start a document with the states of another one (`TrainConfig.state_passing`)."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath
from jax.sharding import PartitionSpec as P

from block_recurrent import init_state
from block_recurrent.config import MeshConfig
from block_recurrent.errors import InputError
from block_recurrent.model.language_model import bind
from block_recurrent.model.state import ModelState
from block_recurrent.parallel.sharding import make_mesh, row_sharding
from block_recurrent.training.checkpoint import Checkpoints
from block_recurrent.training.loop import train
from block_recurrent.training.step import (
    SegmentBatch,
    TrainState,
    _with_kept_states,
    abstract_train_state,
    init_train_state,
    train_step,
)
from tests.support.architectures import CACHED, MEMORY, WINDOW, perturbed_params, random_tokens
from tests.support.workdirs import QUIET, run_config

CONFIG = CACHED["fixed_skip"]
ROWS, LENGTH = 3, 2 * WINDOW
# Keeps the gradients as its state and changes nothing.
GRADIENTS: Any = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda updates, state, params=None: (jax.tree.map(jnp.zeros_like, updates), updates),
)


@functools.cache
def a_state() -> TrainState:
    """Returns a state in the middle of documents."""
    state = init_train_state(CONFIG, GRADIENTS, seed=0, batch_size=ROWS)
    carried = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), state.model_state)
    return dataclasses.replace(state, model_state=carried)


def a_batch(starts: list[bool], seed: int = 2) -> SegmentBatch:
    tokens = random_tokens(CONFIG, ROWS, LENGTH + 1, seed=seed)
    return SegmentBatch(tokens[:, :-1], tokens[:, 1:], jnp.ones((ROWS, LENGTH)), jnp.array(starts))


@functools.cache
def step(**options: Any) -> Any:
    return jax.jit(functools.partial(train_step, CONFIG, GRADIENTS, **options))


def without_caches(state: ModelState) -> ModelState:
    layers = []
    for layer in state.layers:
        assert layer.keys is not None
        assert layer.values is not None
        layers.append(dataclasses.replace(layer, keys=0 * layer.keys, values=0 * layer.values))
    return ModelState(tuple(layers))


def test_a_row_that_starts_a_document_has_the_previous_states_and_no_cache():
    """The same as a row in the middle of a document with empty caches."""
    state = a_state()
    passed, metrics = step(state_passing=1.0)(state, a_batch([True, False, True]))
    empty, whole = without_caches(state.model_state), state.model_state
    starts = jnp.array([True, False, True])
    mixed = jax.tree.map(lambda a, b: jnp.where(starts.reshape(-1, *[1] * (a.ndim - 1)), a, b), empty, whole)
    expected, direct = step()(dataclasses.replace(state, model_state=mixed), a_batch([False] * 3))
    np.testing.assert_allclose(metrics.row_losses, direct.row_losses, rtol=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-7), passed.opt_state, expected.opt_state)
    _, reset = step()(state, a_batch([True, False, True]))
    assert (np.abs(reset.row_losses - metrics.row_losses) > 1e-5).tolist() == [True, False, True]


def test_a_row_that_keeps_its_states_starts_with_an_empty_memory():
    config = MEMORY["memory_and_recurrence"]
    params = perturbed_params(config)
    history, tokens = (random_tokens(config, ROWS, LENGTH, seed=seed) for seed in (4, 5))

    @jax.jit
    def run(tokens: Any, state: ModelState, **starts: Any) -> Any:
        return bind(config, params).hidden_states(tokens, state, **starts)[:2]

    new = init_state(config, params, ROWS)
    carried = run(history, new)[1]
    layers = zip(new.layers, carried.layers, strict=True)
    mixed = ModelState(tuple(dataclasses.replace(empty, recurrent=full.recurrent) for empty, full in layers))
    kept = jnp.array([True, False, True])
    passed = run(tokens, carried, start_of_document=jnp.ones(ROWS, bool), keep_recurrent=kept)
    for row, state in enumerate((mixed, new, mixed)):
        both = [jax.tree.map(lambda x, row=row: x[row], found) for found in (passed, run(tokens, state))]
        jax.tree.map(np.testing.assert_array_equal, *both)


@pytest.mark.slow
def test_no_gradient_flows_from_one_document_into_another():
    """Two documents in one step have the gradients of two steps, in which the state is an input."""
    first, second = a_batch([True] * 3, seed=4), a_batch([True] * 3, seed=5)
    both = jax.tree.map(lambda *segments: jnp.stack(segments, axis=1), first, second)
    after_both, _ = step(state_passing=1.0)(a_state(), both)
    after_first, _ = step(state_passing=1.0)(a_state(), first)
    after_second, _ = step(state_passing=1.0)(after_first, second)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, after_first.opt_state, after_second.opt_state)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), after_both.opt_state, mean)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6), after_both.model_state, after_second.model_state
    )


def test_probability_zero_adds_no_operation():
    def program(**options: Any) -> str:
        function = functools.partial(train_step, CONFIG, GRADIENTS, **options)
        return str(jax.make_jaxpr(function)(a_state(), a_batch([True, False, True])))

    assert "random_bits" in program(state_passing=0.5)
    assert "random_bits" not in program(state_passing=0.0)


def empty_batch(rows: int) -> SegmentBatch:
    tokens, weights = jnp.zeros((rows, 1), jnp.int32), jnp.zeros((rows, 1))
    return SegmentBatch(tokens, tokens, weights, jnp.ones((rows,), bool))


def kept(seed: int, step: int, probability: float = 0.3) -> np.ndarray:
    state = dataclasses.replace(a_state(), step=jnp.int32(step), dropout_key=jax.random.key(seed))
    drawn = _with_kept_states(state, empty_batch(64), probability).keep_recurrent
    assert drawn is not None
    return np.asarray(drawn)


def test_the_draw_is_a_function_of_seed_and_step():
    np.testing.assert_array_equal(kept(1, 7), kept(1, 7))
    assert (kept(1, 7) != kept(1, 8)).any()
    assert (kept(1, 7) != kept(2, 7)).any()
    share = np.mean([kept(0, number) for number in range(30)])
    assert abs(share - 0.3) < 5 * (0.3 * 0.7 / (30 * 64)) ** 0.5
    assert kept(0, 0, probability=1.0).all()


def test_the_draw_does_not_depend_on_the_devices():
    mesh = make_mesh(MeshConfig(data=8))
    state, batch = a_state(), empty_batch(16)

    def draw(state: TrainState, batch: SegmentBatch) -> Any:
        return _with_kept_states(state, batch, 0.5).keep_recurrent

    sharded = jax.jit(draw, out_shardings=row_sharding(mesh))(state, jax.device_put(batch, row_sharding(mesh)))
    assert sharded.sharding.spec == P(("data", "fsdp"))
    np.testing.assert_array_equal(sharded, jax.jit(draw)(state, batch))


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(store_folder, tmp_path):
    run = run_config(store_folder, num_steps=8, eval_every=8, checkpoint_every=4, state_passing=0.5)
    half = dataclasses.replace(run, train=dataclasses.replace(run.train, num_steps=4))
    none = dataclasses.replace(run, train=dataclasses.replace(run.train, state_passing=0.0))
    states = []
    for folder, parts in {"whole": (run,), "parts": (half, run), "none": (none,)}.items():
        for part in parts:
            train(part, epath.Path(tmp_path / folder), QUIET)
        with Checkpoints(epath.Path(tmp_path / folder)) as checkpoints:
            state = checkpoints.restore(abstract_train_state(run)).state
        states.append((state.params, state.opt_state, state.model_state))
    jax.tree.map(np.testing.assert_array_equal, states[0], states[1])
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[2]), strict=True))
    with pytest.raises(InputError, match=r"config.train.state_passing: 0.5 there, 0.0 asked for"):
        train(none, epath.Path(tmp_path / "whole"), QUIET)
