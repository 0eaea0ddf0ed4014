"""Ways to divide the queries of the ordinary layer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from block_recurrent import apply, init_state
from block_recurrent.model.layers import transformer
from tests.support.architectures import CACHED, WINDOW, perturbed_params, random_tokens


def test_half_blocks_compute_the_same(monkeypatch):
    """Windows that are multiples of 256 attend in half blocks; here, small ones do."""
    config, params = CACHED["fixed_skip"], perturbed_params(CACHED["fixed_skip"])
    tokens = random_tokens(config, 2, 3 * WINDOW)

    def loss(params: Any) -> Any:
        state = init_state(config, params, 2)
        first = apply(config, params, tokens, state)
        second = apply(config, params, tokens, first.state)  # sees a cache
        return jnp.mean(jnp.sin(second.logits)), (first.logits, second.logits, second.state)

    def computed() -> Any:
        jax.clear_caches()
        return jax.jit(jax.value_and_grad(lambda params: loss(params), has_aux=True))(params)

    whole = computed()
    monkeypatch.setattr(transformer, "_HALVED", WINDOW)
    halved = computed()
    (_, (logits, *_)), gradient = whole
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (halved, whole)), strict=True))  # another program
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), halved, whole)
    assert float(jnp.max(jnp.abs(logits))) > 0.1
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
