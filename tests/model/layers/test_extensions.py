"""Gates and cells from outside the package (docs/extending.md): mathematics, FLOPs, half-lives and diagnostics."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.config import ModelConfig, OptimizerConfig
from block_recurrent.errors import InputError
from block_recurrent.evaluation.diagnostics import watch
from block_recurrent.model.flops import forward_flops
from block_recurrent.model.half_lives import constant_half_lives, half_life_tokens
from block_recurrent.model.language_model import apply, init_params, init_state
from block_recurrent.model.layers.gates import Gate
from block_recurrent.model.ops.gates import Gates
from block_recurrent.registry import GATES
from block_recurrent.training.optimizer import make_optimizer
from tests.support.architectures import RECURRENT, WINDOW, perturbed_params, random_tokens
from tests.support.extensions import import_examples
from tests.support.flops import program_flops


@pytest.fixture(scope="module", autouse=True)
def _examples(tmp_path_factory):
    import_examples(tmp_path_factory.mktemp("examples"), "scalar_gate", "vector_gate", "projected_cell")


def with_names(name: str, **names: Any) -> ModelConfig:
    return dataclasses.replace(RECURRENT[name], **names)


def place(params: Any, name: str) -> Any:
    """Returns the parameters of one gated update of a model whose layer 1 is recurrent."""
    return params["layers"]["layer_01"]["states"]["cell"][name]


def run(config: ModelConfig, params: Any) -> Any:
    tokens = random_tokens(config, 2, 3 * WINDOW)
    return jax.jit(apply, static_argnums=0)(config, params, tokens, init_state(config, params, 2))


def assert_equal_outputs(ours: Any, theirs: Any, tolerance: float) -> None:
    pair = (ours.logits, ours.state), (theirs.logits, theirs.state)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance), *pair)


def test_the_scalar_gate_is_a_fixed_gate_with_equal_biases():
    fixed, scalar = with_names("fixed_dual"), with_names("fixed_dual", gate="scalar")
    params, other = perturbed_params(fixed), perturbed_params(fixed)
    for name, bias in {"attention": 0.7, "mlp": -0.4}.items():
        place(params, name)["gate"] = {"bias": jnp.full((fixed.embed_dim,), bias)}
        place(other, name)["gate"] = {"bias": jnp.full((1,), bias)}
    assert_equal_outputs(run(scalar, other), run(fixed, params), tolerance=1e-6)
    ours, theirs = constant_half_lives(scalar, other), constant_half_lives(fixed, params)
    assert ours.keys() == theirs.keys() == {"layer_01/attention", "layer_01/mlp"}
    for name, half_lives in ours.items():
        np.testing.assert_allclose(half_lives[0], theirs[name], rtol=1e-6)


@pytest.mark.parametrize("cell", ["skip", "single", "dual"])
def test_the_vector_gate_is_an_lstm_gate_with_equal_columns(cell):
    """The lstm gates are sigmoid(f + 1) and sigmoid(i - 1), and 1 - sigmoid(x) is sigmoid(-x)."""
    lstm, vector = with_names("lstm_skip", cell=cell), with_names("lstm_skip", cell=cell, gate="vector")
    params, other = perturbed_params(lstm), perturbed_params(lstm)
    logits = perturbed_params(vector)
    for name in params["layers"]["layer_01"]["states"]["cell"]:
        if "gate" not in place(params, name):
            continue
        logit = place(logits, name)["gate"]["logit"]
        kernel, bias = (jnp.repeat(logit[leaf], lstm.embed_dim, axis=-1) for leaf in ("kernel", "bias"))
        place(params, name)["gate"] = {
            "forget_gate": {"kernel": kernel, "bias": bias - 1},
            "input_gate": {"kernel": -kernel, "bias": 1 - bias},
        }
        place(other, name)["gate"] = {"logit": logit}
    assert_equal_outputs(run(vector, other), run(lstm, params), tolerance=2e-5)


@pytest.mark.parametrize(
    "names", [{"gate": "scalar"}, {"gate": "vector", "cell": "dual"}, {"cell": "projected", "gate": "vector"}]
)
def test_a_class_brings_its_flops(names):
    config, known = with_names("fixed_skip", **names), with_names("fixed_skip")
    length = 2 * WINDOW
    counted = sum(forward_flops(config, length).values()) - sum(forward_flops(known, length).values())
    assert program_flops(config, length) - program_flops(known, length) == pytest.approx(counted, abs=1e-6)


def test_diagnostics_report_the_gates_of_a_new_cell_at_their_place():
    config = with_names("fixed_skip", cell="projected", gate="scalar", vocab_size=260)
    params = perturbed_params(config)
    tokens = np.asarray(random_tokens(config, 1, 2 * WINDOW)[0])
    (layer,) = watch(config, params, tokens, lambda done, total: None)
    (gate,) = layer.fixed_gates
    forget = np.asarray(jax.nn.sigmoid(place(params, "update_gate")["gate"]["bias"]), np.float64)
    assert (gate.place, layer.lstm_gates) == ("update_gate", ())
    np.testing.assert_allclose(gate.keep, np.full(config.embed_dim, forget[0]), rtol=1e-6)
    np.testing.assert_allclose(gate.half_life_tokens, half_life_tokens(np.log(forget), WINDOW)[0], rtol=1e-5)
    vector = dataclasses.replace(config, gate="vector")
    (layer,) = watch(vector, perturbed_params(vector), tokens, lambda done, total: None)
    assert (layer.fixed_gates, len(layer.lstm_gates)) == ((), 1)


def test_the_rate_of_a_new_gates_bias_is_multiplied():
    config = with_names("fixed_skip", gate="scalar")
    params = init_params(config, jax.random.key(0))
    gradients = jax.tree.map(jnp.ones_like, params)

    def update(multiplier: float) -> Any:
        optimizer = make_optimizer(OptimizerConfig(warmup_steps=0, gate_rate_multiplier=multiplier), 10)
        return place(optimizer.update(gradients, optimizer.init(params), params)[0], "attention")

    plain, faster = update(1.0), update(3.0)
    np.testing.assert_allclose(faster["gate"]["bias"], 3 * plain["gate"]["bias"], rtol=1e-6)
    np.testing.assert_array_equal(
        faster["candidate"]["projection"]["kernel"], plain["candidate"]["projection"]["kernel"]
    )


def test_a_gate_of_a_wrong_shape_is_refused_with_both_shapes():
    if "narrow" not in GATES.names:

        @GATES.register("narrow")
        class NarrowGate(Gate):
            def gates(self, state, *projected):
                return Gates(state[..., :1], state[..., :1])

            @classmethod
            def flops(cls, config, hidden_dim):
                return 0

    config = with_names("fixed_skip", gate="narrow")
    with pytest.raises(InputError, match=r"gate = 'narrow': its class returned gates of shape \(2, 5, 1\)"):
        run(config, init_params(config, jax.random.key(0)))
