import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.evaluation.diagnostics import probe_block, watch
from block_recurrent.model.language_model import apply, init_state
from tests.evaluation.conftest import byte_model
from tests.support.architectures import WINDOW, perturbed_params, random_tokens


@pytest.mark.parametrize(
    "name", ["fixed_skip", "lstm_single", "lstm_dual", "feedback_lstm_single", "two_recurrent", "paper_lstm_skip"]
)
def test_probing_leaves_the_model_s_own_memory(name):
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
    # The same numbers from the states of whole readings.
    before = init_state(config, params, 1).layers[1].recurrent
    after = apply(config, params, tokens[:, :WINDOW], init_state(config, params, 1)).state.layers[1].recurrent
    assert before is not None
    assert after is not None
    change = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert layer.states[0].change == pytest.approx(float(change), rel=1e-4)
    assert layer.states[1].norm == pytest.approx(float(jnp.linalg.norm(after[0], axis=-1).mean()), rel=1e-4)


def test_statistics_of_an_lstm_gate_that_looks_at_nothing():
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
