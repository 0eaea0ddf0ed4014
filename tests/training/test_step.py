import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.config import OptimizerConfig
from block_recurrent.model.language_model import apply
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.step import SegmentBatch, eval_step, init_train_state, train_step
from tests.support.architectures import CACHED, WINDOW, random_tokens, with_dropout


def a_batch(config, weights=None):
    tokens = random_tokens(config, 2, 2 * WINDOW + 1)
    weights = jnp.ones((2, 2 * WINDOW)) if weights is None else weights
    return SegmentBatch(tokens[:, :-1], tokens[:, 1:], weights, jnp.array([True, False]))


def test_padding_changes_neither_loss_nor_parameters():
    config = CACHED["fixed_skip"]
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
    initial = init_train_state(config, optimizer, seed=0, batch_size=2)
    weights = jnp.ones((2, 2 * WINDOW)).at[1, 5:].set(0)
    batch = a_batch(config, weights)
    padded = dataclasses.replace(batch, targets=batch.targets.at[1, 5:].set(0))
    step = jax.jit(functools.partial(train_step, config, optimizer))
    (state, sums), (other, other_sums) = step(initial, batch), step(initial, padded)
    assert sums.tokens == 2 * WINDOW + 5
    assert jnp.sum(sums.row_losses) == jnp.sum(other_sums.row_losses)
    jax.tree.map(np.testing.assert_array_equal, state.params, other.params)


def test_the_step_uses_the_mean_of_the_scored_tokens():
    config = CACHED["slide"]
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
    state = init_train_state(config, optimizer, seed=0, batch_size=2)
    batch = a_batch(config)
    next_state, sums = jax.jit(functools.partial(train_step, config, optimizer))(state, batch)
    start = batch.start_of_document
    logits = apply(config, state.params, batch.tokens, state.model_state, start_of_document=start).logits
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.targets[..., None], -1)
    np.testing.assert_allclose(jnp.sum(sums.row_losses), -jnp.sum(chosen), rtol=1e-6)
    assert int(next_state.step) == 1
    _, row_losses, _ = eval_step(config, state.params, state.model_state, batch)
    np.testing.assert_allclose(row_losses.sum(), jnp.sum(sums.row_losses), rtol=1e-6)


@pytest.mark.slow
def test_dropout_changes_from_step_to_step_and_not_from_run_to_run():
    config = with_dropout(CACHED["lstm_skip"])
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.0), 10)  # parameters stay; only dropout differs
    step = jax.jit(functools.partial(train_step, config, optimizer))
    batch = dataclasses.replace(a_batch(config), start_of_document=jnp.array([True, True]))
    state = init_train_state(config, optimizer, seed=0, batch_size=2)
    losses = []
    for _ in range(2):
        state, sums = step(state, batch)
        losses.append(float(jnp.sum(sums.row_losses)))
    _, first = step(init_train_state(config, optimizer, seed=0, batch_size=2), batch)
    assert float(jnp.sum(first.row_losses)) == losses[0]
    assert losses[0] != losses[1]
    _, other_seed = step(init_train_state(config, optimizer, seed=1, batch_size=2), batch)
    assert float(jnp.sum(other_seed.row_losses)) != losses[0]


def test_one_golden_step():
    """Detects unintended changes of the model, the loss, the gradients or Adafactor."""
    config = CACHED["lstm_dual"]
    optimizer = make_optimizer(OptimizerConfig(schedule="rsqrt", warmup_steps=0), 10)
    state = init_train_state(config, optimizer, seed=0, batch_size=2)
    step = jax.jit(functools.partial(train_step, config, optimizer))
    values = []
    for seed in range(3):
        tokens = random_tokens(config, 2, 2 * WINDOW + 1, seed=seed)
        start = jnp.array([seed == 0, seed != 1])
        batch = SegmentBatch(tokens[:, :-1], tokens[:, 1:], jnp.ones((2, 2 * WINDOW)), start)
        state, sums = step(state, batch)
        values += [float(jnp.sum(sums.row_losses)), float(sums.gradient_norm)]
    np.testing.assert_allclose(values, [124.967285, 1.401363, 113.953651, 1.076946, 121.425636, 1.143608], rtol=1e-4)


@pytest.mark.slow
def test_chunks_of_tokens_do_not_change_the_losses():
    config = with_dropout(CACHED["fixed_skip"])
    optimizer = make_optimizer(OptimizerConfig(schedule="constant", max_rate=0.1, warmup_steps=0), 10)
    state, batch = init_train_state(config, optimizer, seed=0, batch_size=2), a_batch(config)
    steps, sums = zip(
        *(
            jax.jit(functools.partial(train_step, dataclasses.replace(config, loss_chunk=chunk), optimizer))(
                state, batch
            )
            for chunk in (None, WINDOW // 2)
        ),
        strict=True,
    )
    np.testing.assert_allclose(sums[1].row_losses, sums[0].row_losses, rtol=1e-6)
    np.testing.assert_allclose(sums[1].gradient_norm, sums[0].gradient_norm, rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), steps[1].params, steps[0].params)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fixed_skip", "slide", "feedback_lstm_single"])
def test_a_donated_step_computes_the_same(name):
    config = CACHED[name]
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
    batch = a_batch(config)
    kept, _ = jax.jit(functools.partial(train_step, config, optimizer))(
        init_train_state(config, optimizer, seed=0, batch_size=2), batch
    )
    donated, _ = jax.jit(functools.partial(train_step, config, optimizer), donate_argnums=0)(
        jax.jit(functools.partial(init_train_state, config, optimizer, seed=0, batch_size=2))(), batch
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6), donated.params, kept.params)


def one_step(name):
    """Returns a state, a batch with a document start in row 0, and the jitted step."""
    config = CACHED[name]
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
    state = init_train_state(config, optimizer, seed=0, batch_size=2)
    return state, a_batch(config), jax.jit(functools.partial(train_step, config, optimizer))
