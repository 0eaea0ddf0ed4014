"""Initial values of the gates' biases."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.model.language_model import init_params
from block_recurrent.model.ops.gates import fixed_gates, lstm_gates
from block_recurrent.trees import named_leaves
from tests.support.architectures import RECURRENT


def initial(name: str, gate_init_bias: float | None) -> dict[str, jax.Array]:
    config = dataclasses.replace(RECURRENT[name], gate_init_bias=gate_init_bias)
    return named_leaves(init_params(config, jax.random.key(0)))


@pytest.mark.parametrize("name", ["fixed_dual", "lstm_dual"])
def test_the_initial_bias_moves_the_biases_of_the_gates_alone(name):
    official, moved = initial(name, None), initial(name, 2.5)
    changed = {leaf for leaf in official if np.any(official[leaf] != moved[leaf])}
    assert changed == {leaf for leaf in official if "/gate/" in leaf and leaf.endswith("bias")}
    for leaf in changed:
        np.testing.assert_allclose(moved[leaf], official[leaf] + (-2.5 if "input_gate" in leaf else 2.5), rtol=1e-6)
    for leaf, value in initial(name, 0.0).items():
        np.testing.assert_array_equal(value, official[leaf])


@pytest.mark.parametrize("bias", [-3.0, 0.0, 4.0])
def test_both_kinds_of_gates_start_as_a_moving_average(bias):
    """The gates sum to 1, as the documentation of `ModelConfig.gate_init_bias` says."""
    logits = jnp.full((1, 1, 2), bias)
    fixed, lstm = fixed_gates(jnp.full(2, bias)), lstm_gates(logits, -logits)
    np.testing.assert_allclose(fixed.forget, jax.nn.sigmoid(bias), rtol=1e-6)
    np.testing.assert_allclose(lstm.forget, jax.nn.sigmoid(bias + 1), rtol=1e-6)
    for gates in (fixed, lstm):
        np.testing.assert_allclose(gates.forget + gates.input, 1, rtol=1e-6)
