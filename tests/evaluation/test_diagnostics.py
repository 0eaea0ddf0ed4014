import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.evaluation.diagnostics import probe_block, watch
from block_recurrent.model.language_model import apply, init_state
from block_recurrent.model.layers import recurrent
from block_recurrent.model.layers.cells import Cell, GatedUpdate, make_cell
from tests.evaluation.conftest import byte_model
from tests.support.architectures import WINDOW, perturbed_params, random_tokens


@pytest.mark.parametrize(
    "name", ["fixed_skip", "lstm_single", "lstm_dual", "feedback_lstm_single", "two_recurrent", "paper_lstm_skip"]
)
def test_probing_leaves_the_states_of_the_model(name):
    config = byte_model(name)
    params = perturbed_params(config)
    tokens = random_tokens(config, 1, 3 * WINDOW)
    expected = jax.jit(apply, static_argnums=0)(config, params, tokens, init_state(config, params, 1)).state
    state, probes = init_state(config, params, 1), {}
    for start in range(0, 3 * WINDOW, WINDOW):
        state, probes = probe_block(config, params, state, tokens[:, start : start + WINDOW])
    assert probes
    for found, want in zip(state.layers, expected.layers, strict=True):
        assert_close(found.keys, want.keys, 2e-5)
        assert_close(found.values, want.values, 1e-4)
        assert_close(found.recurrent, want.recurrent, 1e-4)
    for probe in probes.values():
        assert 0 < float(probe.states_share) < 1
        assert 1 <= float(probe.states_read) <= config.num_states + 1e-3
        assert 0 < float(probe.mass_on_previous_block) < 1


def assert_close(found, want, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), found, want)  # None equals None


def test_half_lives_and_states_of_a_known_gate():
    """All gates at 1/2: half of everything is gone after one block."""
    config = byte_model("fixed_skip")
    params = perturbed_params(config)
    gate = params["layers"]["layer_01"]["states"]["cell"]["attention"]["gate"]
    gate["bias"] = jnp.zeros_like(gate["bias"]).at[0].set(math.log(3))  # 3/4 of channel 0 stays
    tokens = random_tokens(config, 1, 40 * WINDOW)
    (layer,) = watch(config, params, np.asarray(tokens[0]), lambda done, total: None)
    (fixed,) = layer.fixed_gates
    assert layer.layer == 1
    assert layer.lstm_gates == ()
    assert fixed.half_life_tokens[1] == pytest.approx(WINDOW)
    assert fixed.half_life_tokens[0] == pytest.approx(WINDOW * math.log(1 / 2) / math.log(3 / 4), rel=1e-5)
    assert [p.position for p in layer.states] == list(range(0, 40 * WINDOW, WINDOW))
    assert layer.states[0].similarity_to_initial == pytest.approx(1)
    assert layer.states[0].similarity_to_previous is None
    # The same numbers from the states of a forward pass.
    before = init_state(config, params, 1).layers[1].recurrent
    after = apply(config, params, tokens[:, :WINDOW], init_state(config, params, 1)).state.layers[1].recurrent
    assert before is not None
    assert after is not None
    change = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert layer.states[0].change == pytest.approx(float(change), rel=1e-4)
    assert layer.states[1].norm == pytest.approx(float(jnp.linalg.norm(after[0], axis=-1).mean()), rel=1e-4)


def test_statistics_of_an_lstm_gate_that_depends_on_its_bias_alone():
    config = byte_model("lstm_skip")
    params = perturbed_params(config)
    gate = params["layers"]["layer_01"]["states"]["cell"]["attention"]["gate"]
    for name in ("forget_gate", "input_gate"):
        gate[name] = {"kernel": 0 * gate[name]["kernel"], "bias": 0 * gate[name]["bias"]}
    (layer,) = watch(config, params, np.asarray(random_tokens(config, 1, 4 * WINDOW)[0]), lambda done, total: None)
    (lstm,) = layer.lstm_gates
    forget, input_gate = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))
    np.testing.assert_allclose(lstm.forget_mean, forget, rtol=1e-5)
    np.testing.assert_allclose(lstm.input_mean, input_gate, rtol=1e-5)
    np.testing.assert_allclose(lstm.forget_deviation, 0, atol=1e-4)
    np.testing.assert_allclose(lstm.half_life_tokens, WINDOW * math.log(0.5) / math.log(forget), rtol=1e-5)


class MovingAverage(Cell):
    """A cell with a gate at a place of its own."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.average = GatedUpdate(config, 2 * config.num_heads * config.head_dim, rngs=rngs)

    def fused_weights(self):
        return {"average": self.average.fused_weights()}

    @classmethod
    def flops(cls, config):
        return GatedUpdate.flops(config, 2 * config.num_heads * config.head_dim)

    def update(self, state, attended, fused_weights=None):
        state, gates = self.average(state, attended, (fused_weights or {}).get("average"))
        return state, {"average": gates}


class WithoutGates(Cell):
    """A cell that does not return its gates."""

    def fused_weights(self):
        return {}

    def __call__(self, state, attended, fused_weights=None):
        return state, {}


def probe_with_cell(monkeypatch, cell, num_states):
    """Probes a model with this cell; `num_states` is one that no other test uses, because modules are cached."""
    monkeypatch.setattr(recurrent, "make_cell", lambda config, *, rngs: cell(config, rngs=rngs))
    config = dataclasses.replace(byte_model("fixed_skip"), num_states=num_states)
    params = perturbed_params(config)
    tokens = random_tokens(config, 1, WINDOW)
    return params, probe_block(config, params, init_state(config, params, 1), tokens)[1]["layer_01"]


def test_a_new_cell_is_probed_through_its_own_update(monkeypatch):
    params, probe = probe_with_cell(monkeypatch, MovingAverage, num_states=7)
    bias = params["layers"]["layer_01"]["states"]["cell"]["average"]["gate"]["bias"]
    assert probe.gates.keys() == {"average"}
    np.testing.assert_allclose(probe.gates["average"].forget, jax.nn.sigmoid(bias), rtol=1e-6)


def test_a_cell_that_does_not_return_its_gates_is_an_error(monkeypatch):
    with pytest.raises(TypeError, match=r"abstract class WithoutGates .*update"):
        probe_with_cell(monkeypatch, lambda config, *, rngs: WithoutGates(), num_states=9)  # pyright: ignore[reportAbstractUsage]


@pytest.mark.parametrize("field", ["cell", "gate"])
def test_an_unknown_name_is_an_error(field):
    config = byte_model("fixed_skip")
    object.__setattr__(config, field, "unknown")  # ModelConfig itself would refuse it
    with pytest.raises(InputError, match=f"ModelConfig.{field} = 'unknown': must be one of"):
        make_cell(config, rngs=nnx.Rngs(0))
