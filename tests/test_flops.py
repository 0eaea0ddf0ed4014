"""Counted analytically, and once more from the program: every matrix product in it, loops included."""

import math

import jax
import jax.numpy as jnp
import pytest

from block_recurrent.config import ModelConfig
from block_recurrent.flops import forward_flops
from block_recurrent.model import abstract_params, apply, init_state
from tests.architectures import ALL, LSTM, WINDOW

SEGMENT = 4 * WINDOW


def product_flops(jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            size = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * size * math.prod(equation.outvars[0].aval.shape)
            continue
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * product_flops(inner)
    return total


def program_flops(config: ModelConfig) -> float:
    params = abstract_params(config)
    state = jax.eval_shape(lambda params: init_state(config, params, 1), params)
    tokens = jax.ShapeDtypeStruct((1, SEGMENT), jnp.int32)
    program = jax.make_jaxpr(lambda *arguments: apply(config, *arguments))(params, tokens, state)
    return product_flops(program.jaxpr) / SEGMENT


@pytest.mark.parametrize("name", ["slide", "vanilla", "two_recurrent", "fixed_dual", "lstm_dual", "lstm_single"])
def test_the_count_is_that_of_the_program(name):
    config = ALL[name]
    counted = sum(forward_flops(config, SEGMENT).values())
    heads = config.num_heads * config.head_dim
    if config.window_length is None:
        masked = config.num_layers * 4 * heads * (SEGMENT - (SEGMENT - 1) / 2)
    else:
        masked = config.num_layers * 4 * heads * WINDOW  # a block computes 2 W keys, of which W are seen
    assert program_flops(config) == pytest.approx(counted + masked, rel=1e-12)


def test_the_count_of_an_lstm_is_that_of_the_program():
    assert program_flops(LSTM) == pytest.approx(sum(forward_flops(LSTM, SEGMENT).values()), rel=1e-12)
