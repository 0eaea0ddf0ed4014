"""The analytic count against the matrix products of the program, loops included, and against XLA's count."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from block_recurrent.cli import gin_files
from block_recurrent.config import ModelConfig
from block_recurrent.model.flops import TRAINING_FACTOR, forward_flops, training_flops
from block_recurrent.model.language_model import abstract_params, init_state
from block_recurrent.model.ops.positions import NUM_BUCKETS
from block_recurrent.training.step import SegmentBatch, score_tokens
from tests.support.architectures import ALL, LSTM, MEMORY, WINDOW
from tests.support.flops import product_flops, program_flops

SEGMENT = 4 * WINDOW
CONFIGS = ALL | MEMORY


@pytest.mark.parametrize(
    "name",
    [
        *("slide", "vanilla", "two_recurrent", "fixed_dual", "lstm_dual", "lstm_single"),
        *("memory", "memory_and_recurrence", "memory_no_window"),
    ],
)
def test_the_count_equals_that_of_the_program(name):
    config = CONFIGS[name]
    counted = sum(forward_flops(config, SEGMENT).values())
    heads = config.num_heads * config.head_dim
    if config.window_length is None:
        queries, keys, seen = SEGMENT, SEGMENT, (SEGMENT - 1) / 2
    else:
        queries, keys, seen = WINDOW, 2 * WINDOW, WINDOW
    # The program also multiplies masked keys and, once per segment, computes the bias as a product with 32 buckets.
    masked = 4 * heads * (keys - seen)
    bias = 2 * NUM_BUCKETS * config.num_heads * queries * keys / SEGMENT
    biased = config.num_layers - len(config.memory_indices)
    assert program_flops(config, SEGMENT) == pytest.approx(
        counted + config.num_layers * masked + biased * bias, rel=1e-12
    )


def test_no_gradient_of_a_memory_is_counted():
    """The weights of the attention to the memory are differentiated, its keys and values and the retrieval are not."""
    for name in ("memory", "memory_and_recurrence"):
        config = CONFIGS[name]
        parts = forward_flops(config, SEGMENT)
        factors = dict.fromkeys(parts, 3) | {"memory retrieval": 1, "memory attention": 2}
        counted = sum(factors[part] * count for part, count in parts.items())
        assert training_flops(config, SEGMENT) == pytest.approx(counted, rel=1e-12)
        gradients = []
        for neighbors in (2, 4):  # the difference is of the attention to the memory alone
            changed = dataclasses.replace(config, memory_neighbors=neighbors)
            arguments = training_arguments(changed, SEGMENT)
            program = jax.make_jaxpr(jax.grad(loss, argnums=1), static_argnums=0)(changed, *arguments)
            gradients.append(product_flops(program.jaxpr) / SEGMENT - training_flops(changed, SEGMENT))
        assert gradients[0] == pytest.approx(gradients[1], rel=1e-9)
    assert training_flops(ALL["slide"], SEGMENT) == TRAINING_FACTOR * sum(forward_flops(ALL["slide"], SEGMENT).values())


def test_the_count_of_an_lstm_equals_that_of_the_program():
    assert program_flops(LSTM, SEGMENT) == pytest.approx(sum(forward_flops(LSTM, SEGMENT).values()), rel=1e-12)


def training_arguments(config: ModelConfig, length: int) -> Any:
    """Returns shapes of parameters, state and batch for one row."""
    params = abstract_params(config)
    shaped: Any = jax.ShapeDtypeStruct
    tokens = shaped((1, length), jnp.int32)
    batch = SegmentBatch(tokens, tokens, shaped((1, length), jnp.float32), shaped((1,), jnp.bool_))
    return params, jax.eval_shape(lambda params: init_state(config, params, 1), params), batch


def loss(config: ModelConfig, *arguments: Any) -> jax.Array:
    return jnp.sum(score_tokens(config, *arguments).losses)


@pytest.mark.parametrize("name", ["slide", "fixed_skip", "lstm_dual"])
@pytest.mark.parametrize("training", [False, True])
def test_xla_counts_the_same_within_two_percent(name, training):
    """XLA counts a loop body once, and elementwise operations: the model has one block, and wide matrix products."""
    sizes = {"embed_dim": 512, "num_heads": 4, "head_dim": 128, "mlp_dim": 2048, "vocab_size": 256}
    config = dataclasses.replace(ALL[name], **sizes, num_states=64 if ALL[name].recurrent_layers else 0)
    program = jax.jit(jax.grad(loss, argnums=1) if training else loss, static_argnums=0)
    found: Any = program.lower(config, *training_arguments(config, WINDOW)).cost_analysis()
    masked = config.num_layers * 4 * config.num_heads * config.head_dim * WINDOW
    counted = WINDOW * (sum(forward_flops(config, WINDOW).values()) + masked)
    assert found["flops"] == pytest.approx(counted * (TRAINING_FACTOR if training else 1), rel=0.02)


def test_rematerialisation_on_a_tpu_costs_at_most_15_percent():
    """Training of the paper's model with hardware/tpu.gin, compared with storing all intermediate results."""
    files = ("table1/rec_fixed_skip", "data/pg19_tokens", "recipes/cosine")
    products = {}
    for hardware in ((), ("hardware/tpu",)):
        gin_files.parse([f"gin/{file}.gin" for file in (*files, *hardware)], None)
        run = gin_files.configured_run()
        arguments = training_arguments(run.model, run.data.segment_length)
        gradient = jax.make_jaxpr(jax.grad(loss, argnums=1), static_argnums=0)(run.model, *arguments)
        products[bool(hardware)] = product_flops(gradient.jaxpr)
    recomputed = products[True] / products[False] - 1
    print(f"recomputed: {recomputed:.1%} of {products[False]:.4g}")
    assert 0 < recomputed <= 0.15
