import dataclasses
import functools
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import block_recurrent
from block_recurrent import BlockRecurrentLM, apply, init_params, init_state
from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.model import language_model
from block_recurrent.model.language_model import abstract_params, bind, count_params
from block_recurrent.model.layers.remat import scan_stacked
from block_recurrent.model.loss import cross_entropy
from tests.support import reference
from tests.support.architectures import (
    ALL,
    CACHED,
    MEMORY,
    RECURRENT,
    WINDOW,
    perturbed_params,
    random_tokens,
    with_dropout,
)

run = jax.jit(apply, static_argnums=0)


def assert_equal_trees(a: Any, b: Any, atol: float = 0) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)


@pytest.mark.parametrize("name", ALL)
def test_equals_an_independent_formulation(name):
    config, params = ALL[name], perturbed_params(ALL[name])
    tokens = random_tokens(config, 2, 4 * WINDOW)
    output = run(config, params, tokens, init_state(config, params, 2))
    logits, states = reference.run(config, params, np.asarray(tokens))
    np.testing.assert_allclose(output.logits, logits, rtol=0, atol=2e-5)
    ours = [layer.recurrent for layer in output.state.layers if layer.recurrent is not None]
    assert len(ours) == len(states) == len(config.recurrent_indices)
    for state, expected in zip(ours, states, strict=True):
        np.testing.assert_allclose(state, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", CACHED)
def test_chunked_equals_whole(name):
    config, params = CACHED[name], perturbed_params(CACHED[name])
    tokens = random_tokens(config, 2, 16 * WINDOW)
    whole = run(config, params, tokens, init_state(config, params, 2))
    for pieces in (4, 16):
        state, logits = init_state(config, params, 2), []
        for piece in jnp.split(tokens, pieces, axis=1):
            output = run(config, params, piece, state)
            state = output.state
            logits.append(output.logits)
        np.testing.assert_allclose(jnp.concatenate(logits, axis=1), whole.logits, rtol=0, atol=2e-5)
        assert_equal_trees(state, whole.state, atol=2e-5)


def row_of(state: Any, row: int) -> Any:
    return jax.tree.map(lambda x: x[row], state)


def influence(config: ModelConfig, params: Any, length: int, position: int) -> np.ndarray:
    """Returns, per position, the largest derivative of the logits with respect to the embedding at `position`."""
    tokens = random_tokens(config, 1, length)
    directions = jax.random.normal(jax.random.key(0), (length, config.vocab_size))

    def logits_at(delta: jax.Array) -> jax.Array:
        # An additional token, so that only this position uses the changed row of the table.
        lookup = dict(params, embedding=jnp.concatenate([params["embedding"], (params["embedding"][0] + delta)[None]]))
        larger = dataclasses.replace(config, vocab_size=config.vocab_size + 1)
        marked = tokens.at[0, position].set(config.vocab_size)
        output = apply(larger, lookup, marked, init_state(larger, lookup, 1))
        logits = output.logits[0, :, : config.vocab_size]  # without the logit of the additional token
        return jnp.sum(logits * directions, axis=1)  # in a random direction of each position

    jacobian = jax.jit(jax.jacrev(logits_at))(jnp.zeros(config.embed_dim))
    return np.abs(np.asarray(jacobian)).max(axis=1)


@pytest.mark.parametrize("name", ALL)
def test_no_token_influences_a_logit_before_it(name):
    config, params = ALL[name], perturbed_params(ALL[name])
    length, position = 4 * WINDOW, WINDOW + 3
    effect = influence(config, params, length, position)
    assert (effect[:position] == 0).all()
    assert effect[position] > 0
    if name in RECURRENT:  # the state carries it to the end
        assert effect[-1] > 0


def test_slide_reaches_exactly_layers_times_window():
    config, params = CACHED["slide"], perturbed_params(CACHED["slide"])
    position, reach = 3, config.num_layers * WINDOW
    effect = influence(config, params, 5 * WINDOW, position)
    assert (effect[position : position + reach + 1] > 0).all()
    assert (effect[position + reach + 1 :] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_gets_a_gradient_within_two_segments(name):
    config, params = ALL[name], perturbed_params(ALL[name])
    tokens = random_tokens(config, 2, 2 * 2 * WINDOW + 1)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]

    @jax.jit
    def gradient(params: Any, state: Any, tokens: jax.Array, targets: jax.Array, start: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            output = apply(config, params, tokens, state, start_of_document=start)
            return jnp.sum(cross_entropy(output.logits, targets)), output.state

        return jax.grad(loss, has_aux=True)(params)

    first, state = gradient(
        params,
        init_state(config, params, 2),
        inputs[:, : 2 * WINDOW],
        targets[:, : 2 * WINDOW],
        jnp.array([True, True]),
    )
    second, _ = gradient(params, state, inputs[:, 2 * WINDOW :], targets[:, 2 * WINDOW :], jnp.array([False, False]))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True):
        assert np.abs(a).max() + np.abs(b).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", CACHED)
def test_a_row_that_starts_a_document_equals_a_new_row(name):
    config, params = CACHED[name], perturbed_params(CACHED[name])
    history, tokens = random_tokens(config, 2, 2 * WINDOW, seed=5), random_tokens(config, 2, 2 * WINDOW)
    state = run(config, params, history, init_state(config, params, 2)).state
    carried = run(config, params, tokens, state)
    fresh = run(config, params, tokens, init_state(config, params, 2))
    mixed = run(config, params, tokens, state, start_of_document=jnp.array([False, True]))
    for row, expected in ((0, carried), (1, fresh)):
        np.testing.assert_array_equal(mixed.logits[row], expected.logits[row])
        assert_equal_trees(row_of(mixed.state, row), row_of(expected.state, row))
    assert np.abs(carried.logits[1] - fresh.logits[1]).max() > 1e-3  # the state matters


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_is_close_to_float32(name):
    config, params = ALL[name], init_params(ALL[name], jax.random.key(0))
    tokens = random_tokens(config, 2, 8 * WINDOW)
    exact = run(config, params, tokens, init_state(config, params, 2))
    half = dataclasses.replace(config, dtype="bfloat16")
    rough = run(half, params, tokens, init_state(half, params, 2))
    assert rough.logits.dtype == jnp.float32
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(rough.state))
    # bfloat16 keeps 8 bits: 0.4 % per rounding. Logits have a standard deviation of about 1 here.
    error = np.abs(rough.logits - exact.logits)
    assert error.max() < 0.15
    assert error.mean() < 0.02


def test_dropout_depends_on_the_key_and_is_off_without_one():
    for name in ("lstm_skip", "feedback_fixed_skip", "vanilla"):
        config = ALL[name]
        params, tokens = perturbed_params(config), random_tokens(config, 2, 2 * WINDOW)
        state = init_state(config, params, 2)
        plain = run(config, params, tokens, state).logits
        dropping = with_dropout(config)
        np.testing.assert_array_equal(run(dropping, params, tokens, state).logits, plain)
        first, again, other = (
            run(dropping, params, tokens, state, dropout_key=jax.random.key(seed)).logits for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 1e-2
        assert np.abs(first - plain).max() > 1e-2


def test_dropout_masks_are_shared_by_the_rows():
    config = with_dropout(CACHED["fixed_dual"])
    params, row = perturbed_params(config), random_tokens(config, 1, 2 * WINDOW)
    tokens = jnp.concatenate([row, row])
    logits = run(config, params, tokens, init_state(config, params, 2), dropout_key=jax.random.key(1)).logits
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", RECURRENT)
def test_the_means_of_gates_are_separate_for_each_row(name):
    config, params = RECURRENT[name], perturbed_params(RECURRENT[name])
    tokens = random_tokens(config, 2, 2 * WINDOW)
    together = run(config, params, tokens, init_state(config, params, 2)).gates
    alone = [run(config, params, row[None], init_state(config, params, 1)).gates for row in tokens]
    for index, leaf in enumerate(jax.tree.leaves(together)):
        rows = jnp.stack([jax.tree.leaves(gates)[index] for gates in alone])
        assert leaf.shape == ((2,) if config.gate == "lstm" else ())
        np.testing.assert_allclose(jnp.broadcast_to(leaf, (2,)), rows.reshape(2), rtol=1e-6)
        assert config.gate == "fixed" or leaf[0] != leaf[1]


def scan_bodies(jaxpr: Any) -> list[Any]:
    bodies = []
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", None)
            if inner is not None:
                bodies += [inner] if equation.primitive.name == "scan" else []
                bodies += scan_bodies(inner)
    return bodies


def matmuls(jaxpr: Any) -> int:
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name == "dot_general"
        count += sum(matmuls(v.jaxpr) for v in equation.params.values() if hasattr(v, "jaxpr"))
    return count


@pytest.mark.parametrize(
    ("cell", "gate", "of_the_cell"), [("skip", "fixed", 1), ("dual", "lstm", 3), ("single", "lstm", 2)]
)
def test_the_block_scan_contains_only_the_update_of_the_states(cell, gate, of_the_cell):
    config = dataclasses.replace(CACHED["fixed_skip"], cell=cell, gate=gate)
    params = abstract_params(config)
    tokens = jax.ShapeDtypeStruct((2, 8 * WINDOW), jnp.int32)
    state = jax.eval_shape(functools.partial(init_state, config, batch_size=2), params)
    jaxpr = jax.make_jaxpr(functools.partial(apply, config))(params, tokens, state)
    (body,) = scan_bodies(jaxpr.jaxpr)
    # One product for keys, values and queries of the states, two attentions of two products each, and the cell.
    assert matmuls(body) == 1 + 4 + of_the_cell
    # The size of the program does not depend on the number of blocks.
    longer = jax.ShapeDtypeStruct((2, 32 * WINDOW), jnp.int32)
    assert len(jax.make_jaxpr(functools.partial(apply, config))(params, longer, state).eqns) == len(jaxpr.eqns)


def test_the_module_and_the_functions_are_one_model():
    config = CACHED["lstm_dual"]
    params = init_params(config, jax.random.key(3))
    assert jax.tree.structure(params) == jax.tree.structure(abstract_params(config))
    assert all(type(node) is dict for node in (params, params["layers"], params["layers"]["layer_01"]))
    module = BlockRecurrentLM(config, rngs=nnx.Rngs(params=jax.random.key(3)))
    tokens = random_tokens(config, 1, WINDOW)
    by_module = module(tokens, module.init_state(1))
    by_function = apply(config, params, tokens, init_state(config, params, 1))
    assert_equal_trees(by_module, by_function)
    assert isinstance(bind(config, params), BlockRecurrentLM)
    assert count_params(config) == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_initial_state_has_no_shared_buffers():
    state = init_state(CACHED["fixed_skip"], init_params(CACHED["fixed_skip"], jax.random.key(0)), 2)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)


def test_initialisers_follow_the_official_code():
    config = dataclasses.replace(
        CACHED["lstm_dual"], embed_dim=256, num_heads=4, head_dim=64, mlp_dim=512, num_states=64, vocab_size=500
    )
    params = init_params(config, jax.random.key(0))
    tokens, states = params["layers"]["layer_01"]["tokens"], params["layers"]["layer_01"]["states"]
    attention = states["cell"]["attention"]
    expected = [
        (params["embedding"], 1.0),
        (tokens["projections"]["keys"]["kernel"], 256**-0.5),
        (tokens["output"]["kernel"], 512**-0.5),  # heads of self- and cross-attention, concatenated
        (tokens["mlp"]["output"]["kernel"], 512**-0.5),
        (tokens["relative_bias"], 32**-0.5),
        (attention["gate"]["forget_gate"]["kernel"], (0.1 / 512) ** 0.5),
        (attention["gate"]["input_gate"]["bias"], 0.1),
        (states["position_embeddings"], 1.0),
        (states["initial_state"], 0.1),
    ]
    for leaf, deviation in expected:
        tolerance = 5 / np.sqrt(2 * leaf.size)  # five standard errors
        assert abs(float(jnp.std(leaf)) / deviation - 1) < tolerance
        assert abs(float(jnp.mean(leaf))) < 5 * deviation / np.sqrt(leaf.size)
    assert (tokens["projections"]["attention_scale"] == 1).all()
    assert (params["final_norm"]["scale"] == 1).all()
    kernel = tokens["projections"]["keys"]["kernel"]  # truncated at two standard deviations of the untruncated normal
    assert float(jnp.abs(kernel).max()) < 2 / 0.87 * 256**-0.5


def test_a_length_that_is_not_a_multiple_of_the_window_is_refused():
    config = CACHED["slide"]
    params = init_params(config, jax.random.key(0))
    with pytest.raises(InputError, match=r"tokens: 12 per row; .* multiple of ModelConfig.window_length = 8"):
        apply(config, params, random_tokens(config, 1, 12), init_state(config, params, 1))


def test_public_names_resolve_lazily():
    code = "import sys, block_recurrent; assert not {'jax', 'tensorflow', 'gin'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in block_recurrent.__all__:
        assert getattr(block_recurrent, name).__name__ == {"Output": "ModelOutput"}.get(name, name)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("slide", {"remat": "dots"}),
        pytest.param("lstm_dual", {"remat": "dots", "scan_layers": True}, marks=pytest.mark.slow),
        ("memory", {"remat": "dots", "scan_layers": True}),
        pytest.param("fixed_skip", {"attention_kernel": "fused"}, marks=pytest.mark.slow),
        pytest.param(
            "lstm_dual", {"attention_kernel": "fused", "remat": "dots", "scan_layers": True}, marks=pytest.mark.slow
        ),
        pytest.param("feedback_fixed_skip", {"attention_kernel": "fused", "remat": "full"}, marks=pytest.mark.slow),
        pytest.param("feedback_fixed_skip", {"remat": "full", "scan_layers": True}, marks=pytest.mark.slow),
    ],
)
def test_execution_fields_do_not_change_results(name, how):
    config = with_dropout(dataclasses.replace((CACHED | MEMORY)[name], num_layers=4))
    params = perturbed_params(config)
    tokens, state = random_tokens(config, 2, 2 * WINDOW), init_state(config, params, 2)

    def loss(config, params):
        output = apply(config, params, tokens, state, dropout_key=jax.random.key(3))
        return jnp.sum(jnp.sin(output.logits)), output

    results = [
        jax.jit(jax.value_and_grad(functools.partial(loss, c), has_aux=True))(params)
        for c in (config, dataclasses.replace(config, **how))
    ]
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
    jax.tree.map(close, *results)


@pytest.mark.parametrize(
    ("remat", "num_layers", "recurrent", "lengths"),
    [
        pytest.param("dots", 12, 9, [9, 2], id="one loop before the recurrent layer and one after it"),
        pytest.param("dots", 11, 0, [5, 5], id="ten layers in two loops"),
        pytest.param("full", 13, 9, [5, 4, 3], id="nine layers in two loops"),
    ],
)
def test_equal_layers_run_in_loops_of_similar_length(monkeypatch, remat, num_layers, recurrent, lengths):
    found = []

    def scan(config, step, shared, carry, inputs):
        found.append(len(inputs))
        return scan_stacked(config, step, shared, carry, inputs)

    monkeypatch.setattr(language_model, "scan_stacked", scan)
    config = dataclasses.replace(
        CACHED["fixed_skip"], num_layers=num_layers, recurrent_layers=(recurrent,), scan_layers=True, remat=remat
    )
    state = jax.eval_shape(functools.partial(init_state, config, batch_size=1), abstract_params(config))
    tokens = jax.ShapeDtypeStruct((1, WINDOW), jnp.int32)
    jax.eval_shape(functools.partial(apply, config), abstract_params(config), tokens, state)
    assert found == lengths
