"""Sharded steps equal single-device steps for every architecture; tests of the sharding rules."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from block_recurrent.config import MeshConfig, OptimizerConfig
from block_recurrent.errors import InputError
from block_recurrent.model.language_model import abstract_params
from block_recurrent.parallel.kernels import with_kernels
from block_recurrent.parallel.sharding import (
    check_rows,
    local_rows,
    make_mesh,
    mesh_shape,
    place_rows,
    shardings,
)
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.step import SegmentBatch, init_train_state, train_step
from block_recurrent.training.step_program import across_devices
from tests.support.architectures import ALL, CACHED, MEMORY, WINDOW, perturbed_params, random_tokens, with_dropout

ROWS = 8
SGD: Any = optax.sgd(0.1, momentum=0.9)  # linear in the gradients; Adafactor would magnify rounding errors
DATA8, MIXED = MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2)
# Every kind of row in the paper's Table 1: windows and caches, all cells and gates, feedback; and no window at all.
CONFIGS = ALL | MEMORY
TABLE_ROWS = [
    *("slide", "fixed_dual", "fixed_single", "fixed_skip", "lstm_dual", "lstm_single", "lstm_skip"),
    *("feedback_fixed_skip", "feedback_lstm_single", "vanilla", *MEMORY),
]


def batches(config, count=2):
    for seed in range(count):
        tokens: Any = np.asarray(random_tokens(config, ROWS, 2 * WINDOW + 1, seed=seed))
        weights: Any = np.ones((ROWS, 2 * WINDOW), np.float32)
        weights[1, 5:] = 0
        starts: Any = np.arange(ROWS) % 3 == seed
        yield SegmentBatch(tokens[:, :-1], tokens[:, 1:], weights, starts)


def divided_step(config, mesh, optimizer: Any, **step):
    """Returns `train_step`, divided over the devices of a mesh."""
    passes = step.get("accumulate_steps", 1)
    division = across_devices(config, mesh, abstract_params(config), passes=passes)
    return functools.partial(train_step, config, optimizer, division=division, **step)


def run_steps(config, mesh_config, optimizer: Any = SGD, **step):
    """Takes two steps; returns the state and the metrics of the last step."""
    mesh = make_mesh(mesh_config)
    initialise = functools.partial(init_train_state, config, optimizer, seed=0, batch_size=ROWS)
    placed = shardings(mesh, jax.eval_shape(initialise))
    take_step = jax.jit(
        with_kernels(mesh, config, divided_step(config, mesh, optimizer, **step)),
        out_shardings=(placed, None),
    )
    state, metrics = jax.jit(initialise, out_shardings=placed)(), None
    for batch in batches(config):
        state, metrics = take_step(state, place_rows(mesh, batch, ROWS))
    return state, metrics


def assert_close(ours, expected):
    def compare(a, b):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-5, atol=2e-5)

    jax.tree.map(compare, ours, expected)


@functools.cache
def on_one_device(name):
    return run_steps(with_dropout(CONFIGS[name]), MeshConfig(data=1))


QUICK = {("fixed_skip", MIXED)}
CASES = [
    pytest.param(name, mesh, marks=() if (name, mesh) in QUICK else pytest.mark.slow)
    for name in TABLE_ROWS
    for mesh in (DATA8, MIXED)
]


@pytest.mark.parametrize(("name", "mesh"), CASES)
def test_sharded_equals_a_single_device(name, mesh):
    state, metrics = on_one_device(name)
    sharded_state, sharded_metrics = run_steps(with_dropout(CONFIGS[name]), mesh)
    assert_close(sharded_metrics, metrics)
    assert_close(sharded_state, state)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [DATA8, MIXED])
@pytest.mark.parametrize("name", ["slide", "fixed_skip", "feedback_fixed_skip"])
def test_sharded_fused_kernels_equal_the_plain_attention_of_a_single_device(name, mesh):
    state, metrics = on_one_device(name)
    config = dataclasses.replace(with_dropout(ALL[name]), attention_kernel="fused")
    sharded_state, sharded_metrics = run_steps(config, mesh)
    assert_close(sharded_metrics, metrics)
    assert_close(sharded_state, state)


@pytest.mark.slow
def test_sharded_adafactor_computes_the_same_updates():
    params = perturbed_params(CACHED["lstm_dual"])
    gradients = perturbed_params(CACHED["lstm_dual"], seed=5)
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
    mesh = make_mesh(MIXED)
    placed = shardings(mesh, params)
    update = jax.jit(lambda params, gradients: optimizer.update(gradients, optimizer.init(params), params)[0])
    sharded = update(jax.device_put(params, placed), jax.device_put(gradients, placed))
    assert_close(sharded, update(params, gradients))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm_dual", "memory_and_recurrence"])
def test_accumulated_micro_batches_equal_the_whole_batch(name):
    config = with_dropout(CONFIGS[name])
    whole, metrics = run_steps(config, MeshConfig(data=1))
    for mesh in (MeshConfig(data=1), MeshConfig(data=2)):
        state, accumulated = run_steps(config, mesh, accumulate_steps=4)
        assert_close(state.params, whole.params)
        assert_close(state.model_state, whole.model_state)
        assert_close(accumulated, metrics)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate_steps", [1, 4])
@pytest.mark.parametrize("name", ["fixed_skip", "memory_and_recurrence"])
def test_several_segments_in_a_step_on_two_devices_equal_those_on_one(name, accumulate_steps):
    """Row r of the one batch is the first segment of row r, row r of the other the second."""
    config = with_dropout(CONFIGS[name])
    whole: Any = jax.tree.map(lambda *segments: np.stack(segments, axis=1), *batches(config))
    state, metrics = take_step(config, MeshConfig(data=1), whole)
    sharded, sharded_metrics = take_step(config, MeshConfig(data=2), whole, accumulate_steps=accumulate_steps)
    assert_close(sharded_metrics, metrics)
    assert_close(sharded, state)


def take_step(config, mesh_config, batch, **step):
    mesh = make_mesh(mesh_config)
    initialise = functools.partial(init_train_state, config, SGD, seed=0, batch_size=ROWS)
    placed = shardings(mesh, jax.eval_shape(initialise))
    function = divided_step(config, mesh, SGD, **step)
    compiled = jax.jit(function, out_shardings=(placed, None))
    placed_batch = place_rows(mesh, batch, ROWS)
    assert placed_batch.tokens.sharding.shard_shape(placed_batch.tokens.shape)[0] == ROWS // mesh.size
    return compiled(jax.jit(initialise, out_shardings=placed)(), placed_batch)


@pytest.mark.slow
def test_arrays_are_sharded_by_the_rules():
    config = CACHED["fixed_dual"]
    state, _ = run_steps(config, MIXED, make_optimizer(OptimizerConfig(), 10))
    layer = state.params["layers"]["layer_01"]
    assert layer["tokens"]["projections"]["keys"]["kernel"].sharding.spec == P("fsdp", "tensor")
    assert layer["tokens"]["output"]["kernel"].sharding.spec == P("tensor", "fsdp")
    assert state.params["embedding"].sharding.spec == P(None, "fsdp")  # 23 rows: two devices do not divide them
    assert layer["states"]["initial_state"].sharding.spec == P(None, "fsdp")
    layer_state = state.model_state.layers[1]
    assert layer_state.keys is not None
    assert layer_state.recurrent is not None
    assert layer_state.keys.sharding.spec == P(("data", "fsdp"), None, "tensor", None)
    assert layer_state.recurrent.sharding.spec == P(("data", "fsdp"), None, None)
    assert layer_state.keys.addressable_shards[0].data.shape[0] == ROWS // 4
    momentum = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == state.params["embedding"].shape]
    assert all(leaf.sharding.spec == P(None, "fsdp") for leaf in momentum)
    assert momentum


def test_memories_are_sharded_with_their_rows_and_heads():
    state = jax.eval_shape(functools.partial(init_train_state, MEMORY["memory"], SGD, seed=0, batch_size=ROWS))
    layer = shardings(make_mesh(MIXED), state.model_state).layers[1]
    assert layer.memory_keys.spec == layer.memory_values.spec == P(("data", "fsdp"), "tensor", None, None)
    assert layer.memory_index.spec == P(("data", "fsdp"))


def test_every_parameter_matrix_has_a_rule_of_its_own():
    """A new kernel without a rule would silently be replicated."""
    mesh = make_mesh(MIXED)
    for name, config in CONFIGS.items():
        optimizer = make_optimizer(OptimizerConfig(), 10)
        state = jax.eval_shape(functools.partial(init_train_state, config, optimizer, seed=0, batch_size=ROWS))
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_flatten_with_path(state.params)[0],
            jax.tree.leaves(shardings(mesh, state.params)),
            strict=True,
        ):
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            divided = any(axis is not None for axis in sharding.spec)
            assert divided or leaf.ndim < 2 or where.endswith("relative_bias"), f"{name}: {where}"


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match=r"DataConfig.batch_size = 12: must be a multiple of 8: data 8 x fsdp 1"):
        check_rows(make_mesh(DATA8), 12)
    with pytest.raises(InputError, match=r"multiple of 16.*accumulate_steps = 2"):
        check_rows(make_mesh(DATA8), 8, accumulate_steps=2)


@pytest.mark.parametrize("config", [MeshConfig(fsdp=3), MeshConfig(data=4, tensor=4), MeshConfig(tensor=16)])
def test_a_mesh_that_does_not_fit_is_refused(config):
    with pytest.raises(InputError, match=r"must multiply to the 8 device"):
        mesh_shape(config, 8)


def test_one_process_reads_all_rows():
    assert local_rows(make_mesh(MIXED), ROWS) == slice(0, ROWS)
