"""Models with an external memory (Memorizing Transformer), run segment by segment."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from block_recurrent import apply, init_params, init_state
from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.training.step import SegmentBatch, init_train_state, train_step
from tests.support import reference
from tests.support.architectures import CACHED, MEMORY, SEGMENT, WINDOW, perturbed_params, random_tokens

run = jax.jit(apply, static_argnums=0)
# Keeps the gradients as its state and changes nothing.
GRADIENTS: Any = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda updates, state, params=None: (jax.tree.map(jnp.zeros_like, updates), updates),
)


def run_segments(config: ModelConfig, params: Any, tokens: jax.Array, length: int, state: Any = None) -> Any:
    """Returns the logits of all segments and the last state."""
    state, logits = init_state(config, params, len(tokens)) if state is None else state, []
    for start in range(0, tokens.shape[1], length):
        output = run(config, params, tokens[:, start : start + length], state)
        state = output.state
        logits.append(output.logits)
    return jnp.concatenate(logits, axis=1), state


@pytest.mark.parametrize("name", MEMORY)
def test_equals_an_independent_formulation(name):
    """Five segments: the memory holds two, or with feedback three blocks, so it wraps."""
    config, params = MEMORY[name], perturbed_params(MEMORY[name])
    tokens = random_tokens(config, 2, 5 * SEGMENT)
    logits, state = run_segments(config, params, tokens, SEGMENT)
    expected, states = reference.run(config, params, np.asarray(tokens), segment=SEGMENT)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=3e-5)
    ours = [layer.recurrent for layer in state.layers if layer.recurrent is not None]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=3e-5), ours, states)
    for index, layer in enumerate(state.layers):
        assert (layer.memory_keys is not None) == (index in config.memory_indices)
        if layer.memory_index is not None:
            np.testing.assert_array_equal(layer.memory_index, [5 * SEGMENT] * 2)


def test_only_the_length_of_the_segments_decides_what_the_memory_holds():
    """The memory is written segment by segment; with block feedback, block by block whatever the segments."""
    for name, equal in (("memory", False), ("memory_feedback", True)):
        config, params = MEMORY[name], perturbed_params(MEMORY[name])
        tokens = random_tokens(config, 2, 2 * SEGMENT)
        (long, _), (short, _) = (run_segments(config, params, tokens, length) for length in (SEGMENT, WINDOW))
        np.testing.assert_allclose(long[:, :WINDOW], short[:, :WINDOW], rtol=0, atol=2e-5)
        assert bool(np.abs(long - short).max() < 2e-5) == equal, name


def test_layers_below_the_memory_do_not_depend_on_the_segments():
    config, params = MEMORY["memory"], perturbed_params(MEMORY["memory"])
    tokens = random_tokens(config, 2, 2 * SEGMENT)
    (_, long), (_, short) = (run_segments(config, params, tokens, length) for length in (SEGMENT, WINDOW))
    for name in ("keys", "values", "memory_keys", "memory_values"):  # layer 1 reads the outputs of layer 0
        long_leaf, short_leaf = getattr(long.layers[1], name), getattr(short.layers[1], name)
        np.testing.assert_allclose(long_leaf, short_leaf, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["memory", "memory_and_recurrence"])
def test_a_row_that_starts_a_document_equals_a_new_row(name):
    config, params = MEMORY[name], perturbed_params(MEMORY[name])
    history, tokens = random_tokens(config, 2, SEGMENT, seed=5), random_tokens(config, 2, SEGMENT)
    state = run(config, params, history, init_state(config, params, 2)).state
    broken = jax.tree.map(lambda x: x.at[1].set(jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else 7), state)
    fresh = run(config, params, tokens, init_state(config, params, 2))
    carried = run(config, params, tokens, state)
    mixed = run(config, params, tokens, broken, start_of_document=jnp.array([False, True]))
    for row, expected in ((0, carried), (1, fresh)):
        rows = [jax.tree.map(lambda x, row=row: x[row], (o.logits, o.state)) for o in (mixed, expected)]
        jax.tree.map(np.testing.assert_array_equal, *rows)


def test_the_first_segment_sees_an_empty_memory():
    """Its output is (1 - g) times that of local attention: a gate of 0 gives other logits, any memory the same."""
    config, params = MEMORY["memory"], perturbed_params(MEMORY["memory"])
    tokens, state = random_tokens(config, 2, SEGMENT), init_state(config, params, 2)
    output = run(config, params, tokens, state)
    for change in ({"memory_size": 4 * SEGMENT}, {"memory_neighbors": 2}, {"memory_retrieval": "exact"}):
        other = dataclasses.replace(config, **change)
        again = run(other, params, tokens, init_state(other, params, 2))
        np.testing.assert_allclose(again.logits, output.logits, rtol=0, atol=1e-6)
    layers = params["layers"]
    closed = layers["layer_01"] | {"external_memory_bias": jnp.full(config.num_heads, -100.0)}
    other = run(config, params | {"layers": layers | {"layer_01": closed}}, tokens, state)
    assert np.abs(other.logits - output.logits).max() > 1e-2


def test_no_gradient_flows_into_the_memory():
    config, params = MEMORY["memory"], perturbed_params(MEMORY["memory"])
    tokens = random_tokens(config, 2, 2 * SEGMENT)
    state = run(config, params, tokens[:, :SEGMENT], init_state(config, params, 2)).state

    @jax.jit
    def logits_of(floats: Any) -> Any:
        layers = [dataclasses.replace(layer, **leaves) for layer, leaves in zip(state.layers, floats, strict=True)]
        return apply(config, params, tokens[:, SEGMENT:], dataclasses.replace(state, layers=tuple(layers))).logits

    names = ("keys", "values", "memory_keys", "memory_values")
    floats = [{n: getattr(layer, n) for n in names if getattr(layer, n) is not None} for layer in state.layers]
    for layer in jax.grad(lambda floats: jnp.sum(jnp.sin(logits_of(floats))))(floats):
        for name, leaf in layer.items():
            assert np.any(leaf) != name.startswith("memory_"), name
    changed = [dict(leaves) for leaves in floats]
    changed[1]["memory_values"] = -changed[1]["memory_values"]
    assert np.abs(logits_of(changed) - logits_of(floats)).max() > 1e-2  # and yet the memory matters


def test_gradients_equal_central_differences():
    """Along the gradient of each parameter, the loss of a segment that reads a full memory; every slot is retrieved.

    With fewer neighbors, a small change of a parameter may choose other slots, which is a jump.
    """
    config = dataclasses.replace(MEMORY["memory"], memory_retrieval="exact", memory_neighbors=2 * SEGMENT)
    params, tokens = perturbed_params(config), random_tokens(config, 2, 3 * SEGMENT)
    _, state = run_segments(config, params, tokens[:, : 2 * SEGMENT], SEGMENT)

    def loss(params: Any) -> jax.Array:
        return jnp.mean(jnp.sin(apply(config, params, tokens[:, 2 * SEGMENT :], state).logits))

    def difference(params: Any, direction: Any, size: float) -> jax.Array:
        sides = [loss(jax.tree.map(lambda x, d, s=s: x + s * size * d, params, direction)) for s in (1, -1)]
        return (sides[0] - sides[1]) / (2 * size)

    gradient, difference = jax.jit(jax.grad(loss))(params), jax.jit(difference, static_argnums=2)
    names, leaves = zip(*jax.tree.leaves_with_path(gradient), strict=True)
    for number, (name, leaf) in enumerate(zip(names, leaves, strict=True)):
        length = jnp.linalg.norm(leaf)
        parts = [leaf / length if number == other else jnp.zeros_like(x) for other, x in enumerate(leaves)]
        direction = jax.tree.unflatten(jax.tree.structure(gradient), parts)
        found = difference(params, direction, 3e-3)
        np.testing.assert_allclose(found, length, rtol=3e-3, atol=1e-5, err_msg=str(name))  # atol: float32 over 6e-3


def test_segments_of_one_step_are_joined_by_the_memory_alone_and_its_gradient_stops():
    """Without a window, the gradient of two segments in a step is the sum of those of two steps with constant states.

    Dense layers with a memory get a gradient of every parameter, the gate's bias included.
    """
    config, rows = MEMORY["memory_no_window"], 2
    tokens = random_tokens(config, rows, 2 * SEGMENT + 1)

    def batch(first: int, segments: int) -> SegmentBatch:
        shape = (rows, SEGMENT) if segments == 1 else (rows, segments, SEGMENT)
        start = np.zeros((rows, segments), bool)
        start[:, 0] = first == 0
        inputs, targets = (tokens[:, first + d : first + d + segments * SEGMENT].reshape(shape) for d in (0, 1))
        return SegmentBatch(inputs, targets, jnp.ones(shape), jnp.asarray(start if segments > 1 else start[:, 0]))

    step = jax.jit(functools.partial(train_step, config, GRADIENTS))
    state = init_train_state(config, GRADIENTS, seed=0, batch_size=rows, params=perturbed_params(config))
    together, metrics = step(state, batch(0, 2))
    first, _ = step(state, batch(0, 1))
    second, _ = step(first, batch(SEGMENT, 1))
    assert metrics.finite
    halves = jax.tree.map(lambda a, b: (a + b) / 2, first.opt_state, second.opt_state)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), together.opt_state, halves)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), together.model_state, second.model_state
    )
    assert all(np.any(gradient) for gradient in jax.tree.leaves(halves))


@pytest.mark.parametrize("name", ["memory", "memory_and_recurrence"])
def test_bfloat16_is_close_to_float32(name):
    config, params = MEMORY[name], init_params(MEMORY[name], jax.random.key(0))
    tokens = random_tokens(config, 2, 4 * SEGMENT)
    half = dataclasses.replace(config, dtype="bfloat16")
    (exact, _), (rough, state) = (run_segments(c, params, tokens, SEGMENT) for c in (config, half))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.int32)}
    assert np.isfinite(rough).all()
    # As without a memory (0.15 and 0.02), and a query may retrieve another slot of almost the same score.
    error = np.abs(rough - exact)
    assert error.max() < 0.3
    assert error.mean() < 0.02


def test_a_layer_without_a_memory_has_no_leaf_for_it():
    config = CACHED["fixed_skip"]
    state = init_state(config, init_params(config, jax.random.key(0)), 2)
    assert len(jax.tree.leaves(state)) == 2 * config.num_layers + 1
    memory = init_state(MEMORY["memory"], init_params(MEMORY["memory"], jax.random.key(0)), 2)
    assert len(jax.tree.leaves(memory)) == 2 * config.num_layers + 3
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(memory)]
    assert len(set(pointers)) == len(pointers)


def test_the_structure_of_a_state_does_not_depend_on_its_leaves():
    """A jitted function with shardings of its results builds the state of layouts, all of them None."""
    config = MEMORY["memory_and_recurrence"]
    params = init_params(config, jax.random.key(0))
    state = init_state(config, params, 2)
    without = jax.tree.map(lambda leaf: None, state)
    assert [layer.has_memory for layer in without.layers] == [False, True, True]
    assert [len(layer.tree_flatten_with_keys()[0]) for layer in without.layers] == [3, 6, 6]
    one_device = jax.tree.map(lambda leaf: leaf.sharding, state)
    placed = jax.jit(functools.partial(init_state, config, batch_size=2), out_shardings=one_device)(params)
    jax.tree.map(np.testing.assert_array_equal, placed, state)


def test_a_segment_that_does_not_divide_the_memory_is_refused():
    config = MEMORY["memory"]
    params = init_params(config, jax.random.key(0))
    with pytest.raises(InputError, match=r"tokens per row = 24: must divide ModelConfig.memory_size = 32: the memory"):
        apply(config, params, random_tokens(config, 1, 24), init_state(config, params, 1))
