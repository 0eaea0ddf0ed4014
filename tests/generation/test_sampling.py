"""Sampling: filters, penalty and the independence of rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.errors import InputError
from block_recurrent.generation.sampling import Sampling, row_keys, sample, sampling_noise

NO_TOKENS = jnp.full((1, 3), -1)


def draw(keys: jax.Array, logits: jax.Array, sampling: Sampling, position: jax.Array, recent: jax.Array) -> jax.Array:
    noise = sampling_noise(keys, sampling, position, logits.shape[1])
    return sample(noise, logits, sampling, recent=recent)


def samples(sampling: Sampling, logits: jax.Array, recent: jax.Array = NO_TOKENS, count: int = 4000) -> np.ndarray:
    rows = jnp.broadcast_to(logits, (count, len(logits)))
    recent = jnp.broadcast_to(recent, (count, recent.shape[1]))
    keys = row_keys(0, list(range(count)))
    return np.asarray(draw(keys, rows, sampling, jnp.zeros(count, jnp.uint32), recent))


def test_a_sample_is_that_of_jax_random_categorical():
    logits, keys = jax.random.normal(jax.random.key(1), (200, 30)), row_keys(3, list(range(200)))
    position = jnp.arange(200).astype(jnp.uint32)
    ours = draw(keys, logits, Sampling(), position, jnp.full((200, 1), -1))
    folded = jax.vmap(jax.random.fold_in)(keys, position)
    np.testing.assert_array_equal(ours, jax.vmap(jax.random.categorical)(folded, logits))


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0.4, 0.3, 0.2, 0.1]),
        (Sampling(temperature=0.5), np.array([16, 9, 4, 1]) / 30),
        (Sampling(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(top_k=99), [0.4, 0.3, 0.2, 0.1]),
        (Sampling(top_p=0.65), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(top_p=0.01), [1, 0, 0, 0]),
        (Sampling(top_k=3, top_p=0.75), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(min_p=0.6), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(min_p=0.4), [4 / 9, 3 / 9, 2 / 9, 0]),
        (Sampling(temperature=0), [1, 0, 0, 0]),
    ],
    ids=str,
)
def test_sampling_follows_the_filtered_distribution(sampling, expected):
    frequencies = np.bincount(samples(sampling, jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))), minlength=4) / 4000
    np.testing.assert_allclose(frequencies, expected, rtol=0, atol=0.03)
    assert (frequencies[np.asarray(expected) == 0] == 0).all()


def test_the_repetition_penalty_applies_once_to_each_recent_token_whatever_its_sign():
    logits, penalised = jnp.array([1.0, -1.0, 0.5, 0.2]), np.array([0.5, -2.0, 0.5, 0.2])
    recent = jnp.array([[0, 1, 1, -1]])
    frequencies = np.bincount(samples(Sampling(repetition_penalty=2.0), logits, recent), minlength=4) / 4000
    np.testing.assert_allclose(frequencies, np.exp(penalised) / np.exp(penalised).sum(), rtol=0, atol=0.03)
    assert (samples(Sampling(repetition_penalty=3.0, temperature=0), logits, recent, 2) == 2).all()


def test_a_sampled_token_depends_only_on_seed_sample_and_position():
    logits, flat = jax.random.normal(jax.random.key(0), (3, 50)), Sampling(temperature=5.0)
    recent, position = jnp.full((3, 4), -1), jnp.array([7, 8, 9], jnp.uint32)
    together = draw(row_keys(1, [0, 1, 2]), logits, flat, position, recent)
    alone = draw(row_keys(1, [1]), logits[1:2], flat, position[1:2], recent[:1])
    assert int(together[1]) == int(alone[0])
    many = jnp.broadcast_to(logits[:1], (40, 50))
    for keys, positions in [
        (row_keys(1, list(range(40))), jnp.zeros(40, jnp.uint32)),
        (row_keys(1, [0] * 40), jnp.arange(40).astype(jnp.uint32)),
    ]:
        assert len(set(np.asarray(draw(keys, many, flat, positions, jnp.full((40, 4), -1))))) > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, "temperature = -1.0: must be at least 0"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"top_k": -1}, "top_k = -1"),
        ({"top_p": 0.0}, "top_p = 0.0: must be above 0"),
        ({"min_p": 1.5}, "min_p = 1.5: must be at least 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty = 0.0: must be above 0"),
    ],
)
def test_impossible_sampling_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Sampling(**arguments)
