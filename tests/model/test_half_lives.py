import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.model.half_lives import constant_half_lives, half_life_metrics, half_life_tokens
from block_recurrent.model.ops.gates import fixed_gates, mix
from tests.support.architectures import CACHED, CELLS_AND_GATES, RECURRENT, WINDOW, perturbed_params


def with_bias(config, bias):
    """Returns parameters whose gates all have this bias."""
    params: Any = perturbed_params(config)
    for layer in params["layers"].values():
        for weights in layer.get("states", {}).get("cell", {}).values():
            if "gate" in weights:
                weights["gate"]["bias"] = jnp.asarray(bias, jnp.float32)
    return params


def blocks_until_half(bias):
    """Simulates a state that is never written: the update with a candidate of 0, until half is left.

    Returns:
        (D,) blocks; between two blocks the state decays exponentially.
    """
    gates, state = fixed_gates(jnp.asarray(bias, jnp.float32)), jnp.ones((1, 1, len(bias)))
    left = [np.ones(len(bias))]
    while (left[-1] > 0.5).any():
        state = mix(state, jnp.zeros_like(state), gates)
        left.append(np.asarray(state[0, 0], np.float64))
    decay = np.stack(left)
    last = (decay > 0.5).sum(axis=0) - 1  # last block with more than half
    before, after = (np.take_along_axis(decay, k[None], axis=0)[0] for k in (last, last + 1))
    return last + np.log(before / 0.5) / np.log(before / after)


@pytest.mark.parametrize("name", ["fixed_skip", "fixed_dual", "two_recurrent"])
def test_a_half_life_is_the_time_in_which_half_of_a_simulated_state_decays(name):
    config = RECURRENT[name]
    bias = np.linspace(-2, 4, config.embed_dim)
    found = constant_half_lives(config, with_bias(config, bias))
    places = {"fixed_skip": ["attention"], "fixed_dual": ["attention", "mlp"], "two_recurrent": ["attention"]}[name]
    layers = sorted(config.recurrent_indices)
    assert list(found) == [f"layer_{layer:02}/{place}" for layer in layers for place in places]
    expected = WINDOW * blocks_until_half(bias)
    for half_lives in found.values():
        np.testing.assert_allclose(half_lives, expected, rtol=1e-4)


def test_a_gate_at_one_half_loses_half_in_each_block_and_a_closed_gate_has_a_finite_half_life():
    config = RECURRENT["fixed_skip"]
    bias = np.zeros(config.embed_dim)
    bias[1], bias[2] = math.log(3), 1e4
    (half_lives,) = constant_half_lives(config, with_bias(config, bias)).values()
    assert half_lives[0] == pytest.approx(WINDOW)
    assert half_lives[1] == pytest.approx(WINDOW * math.log(1 / 2) / math.log(3 / 4))
    assert 1e100 < half_lives[2] < math.inf


def test_metrics_are_percentiles_over_the_channels():
    found = half_life_metrics({"layer_01/attention": np.arange(101.0)})
    assert found == {f"half_life_tokens/layer_01/attention/p{p}": pytest.approx(p) for p in (10, 50, 90, 99)}


def test_other_models_have_none():
    for config in (CACHED["slide"], CELLS_AND_GATES["lstm_dual"]):
        assert constant_half_lives(config, perturbed_params(config)) == {}


def test_nothing_is_compiled():
    """`train` computes half-lives in every run."""
    config = RECURRENT["fixed_dual"]
    params = perturbed_params(config)
    compiled = []

    def listen(event, duration_secs, **kwargs):
        compiled.append(event)

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        half_life_metrics(constant_half_lives(config, params))
        assert compiled == []
        jax.jit(lambda x: x + 1)(np.float32(1))
        assert any("compile" in event for event in compiled)  # the listener hears compilations
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_half_lives_need_only_the_logarithm_of_the_gate():
    np.testing.assert_allclose(half_life_tokens(np.log([0.5, 0.25]), 32), [32, 16])
