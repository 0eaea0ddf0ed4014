"""Decoding equals the teacher-forced forward pass: every architecture, every position, rows at different positions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.generation import decode_state
from block_recurrent.generation.decode_step import decode_step
from block_recurrent.model.language_model import apply, init_params, init_state
from tests.support.architectures import ALL, CACHED, WINDOW, perturbed_params, random_tokens
from tests.support.decoding import SEGMENT, TOTAL, prefill_rows, teacher_forced_logits

# Prompt lengths of the rows of one batch: none, one token, around a block's end, a segment's end, several.
LENGTHS = (0, 1, WINDOW - 1, WINDOW, WINDOW + 1, SEGMENT, SEGMENT + 3, 2 * SEGMENT)

jit_decode_step = jax.jit(decode_step, static_argnums=0)

QUICK = ("lstm_dual", "two_recurrent", "feedback_fixed_skip", "slide", "vanilla")
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL]


@pytest.mark.parametrize("name", CASES)
def test_every_row_has_the_logits_of_the_forward_pass_at_every_position(name):
    config, params = ALL[name], perturbed_params(ALL[name])
    tokens = np.asarray(random_tokens(config, len(LENGTHS), TOTAL))
    expected = teacher_forced_logits(config, params, tokens)
    rows, lengths = np.arange(len(LENGTHS)), np.array(LENGTHS)
    state = prefill_rows(config, params, tokens, lengths)
    for step in range(TOTAL - max(LENGTHS)):
        position = lengths + step
        if step:
            state = jit_decode_step(config, params, state, tokens[rows, position - 1])
        np.testing.assert_array_equal(state.position, position)
        begun = position > 0
        wanted = np.where(begun[:, None], expected[rows, position - 1], 0)
        np.testing.assert_allclose(state.logits, wanted, rtol=0, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm_dual", "feedback_two_recurrent"])
def test_a_row_does_not_depend_on_other_rows_and_its_state_equals_the_forward_pass(name):
    config, params = CACHED[name], perturbed_params(CACHED[name])
    tokens = np.asarray(random_tokens(config, 3, TOTAL))
    states = prefill_rows(config, params, tokens, [5, SEGMENT, WINDOW + 2])
    others = np.array(random_tokens(config, 3, TOTAL, seed=9))
    others[1] = tokens[1]
    with_others = prefill_rows(config, params, others, [SEGMENT + 1, SEGMENT, 0])
    alone = prefill_rows(config, params, tokens[1:2], [SEGMENT])
    for step in range(WINDOW + 3):
        row = jax.tree.map(lambda leaf: leaf[1], states)
        other = jax.tree.map(lambda leaf: leaf[1], with_others)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-5), row, other)
        np.testing.assert_allclose(row.logits, alone.logits[0], rtol=0, atol=2e-5)
        next_tokens = tokens[:, SEGMENT + step]
        states, with_others = (jit_decode_step(config, params, state, next_tokens) for state in (states, with_others))
        alone = jit_decode_step(config, params, alone, next_tokens[1:2])
        if int(alone.filled[0]) == 0:  # at a block's end
            so_far = jnp.asarray(tokens[1:2, : int(alone.position[0])])
            expected = apply(config, params, so_far, init_state(config, params, 1)).state
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-5), alone.model_state, expected)
            converted = decode_state.from_model_state(
                config, params, expected, tokens=so_far[:, -WINDOW:], position=alone.position, logits=alone.logits
            )
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-5), alone, converted)


@pytest.mark.parametrize("name", ["lstm_single", "vanilla"])
def test_bfloat16_decoding_is_close_to_its_forward_pass(name):
    config = dataclasses.replace(ALL[name], dtype="bfloat16")
    params = init_params(config, jax.random.key(0))
    tokens = np.asarray(random_tokens(config, 2, TOTAL))
    state = prefill_rows(config, params, tokens, [SEGMENT - 2, 3])
    assert state.layers[0].ring.keys.dtype == jnp.bfloat16
    expected = teacher_forced_logits(config, params, tokens)
    for step in range(5):
        position = np.array([SEGMENT - 2, 3]) + step
        np.testing.assert_allclose(state.logits, expected[[0, 1], position - 1], rtol=0, atol=0.1)
        state = jit_decode_step(config, params, state, tokens[[0, 1], position])
