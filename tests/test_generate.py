import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.errors import InputError
from block_recurrent.generate import Sampling, generate, sample
from block_recurrent.model import apply, init_state
from tests.architectures import ALL, CACHED, WINDOW, perturbed_params, random_tokens

GREEDY = Sampling(temperature=0)


@pytest.mark.parametrize("name", ["slide", "lstm_dual", "feedback_fixed_skip", "two_recurrent", "vanilla"])
def test_greedy_decoding_takes_the_teacher_forced_maximum_at_every_position(name):
    config, params = ALL[name], perturbed_params(ALL[name])
    total = 4 * WINDOW
    for prompt_length in (1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 3):
        prompt = np.asarray(random_tokens(config, 1, prompt_length)[0])
        new = list(
            generate(
                config,
                params,
                prompt,
                num_tokens=total - prompt_length,
                vocab_size=config.vocab_size,
                sampling=GREEDY,
                seed=0,
                segment_length=total,
            )
        )
        tokens = jnp.asarray([[*prompt, *new]])
        logits = apply(config, params, tokens, init_state(config, params, 1)).logits[0]
        np.testing.assert_array_equal(new, jnp.argmax(logits, axis=-1)[prompt_length - 1 : -1])


def draws(sampling: Sampling, logits: jax.Array) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), 4000)
    return np.asarray(jax.vmap(lambda key: sample(key, logits, sampling))(keys))


def test_sampling_follows_the_filtered_distribution():
    logits = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))
    for sampling, expected in [
        (Sampling(), [0.4, 0.3, 0.2, 0.1]),
        (Sampling(temperature=0.5), np.array([16, 9, 4, 1]) / 30),
        (Sampling(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(top_k=99), [0.4, 0.3, 0.2, 0.1]),
        (Sampling(top_p=0.65), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(top_p=0.01), [1, 0, 0, 0]),
        (Sampling(top_k=3, top_p=0.75), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(temperature=0), [1, 0, 0, 0]),
    ]:
        frequencies = np.bincount(draws(sampling, logits), minlength=4) / 4000
        np.testing.assert_allclose(frequencies, expected, rtol=0, atol=0.03, err_msg=str(sampling))
        assert (frequencies[np.asarray(expected) == 0] == 0).all()


def test_a_seed_fixes_the_continuation_and_unused_rows_are_never_drawn():
    config, params = CACHED["fixed_skip"], perturbed_params(CACHED["fixed_skip"])
    prompt = np.array([1, 2, 3])

    def continuation(seed: int) -> list[int]:
        flat = Sampling(temperature=50.0)
        return list(generate(config, params, prompt, num_tokens=60, vocab_size=5, sampling=flat, seed=seed))

    assert continuation(0) == continuation(0)
    assert continuation(0) != continuation(1)
    assert set(continuation(0)) == set(range(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, "temperature = -1.0: must be at least 0"),
        ({"top_k": -1}, "top_k = -1"),
        ({"top_p": 0.0}, "top_p = 0.0: must be above 0"),
        ({"temperature": float("nan")}, "temperature = nan"),
    ],
)
def test_impossible_sampling_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Sampling(**arguments)


def test_prompts_that_cannot_be_read_are_refused_at_once():
    config, params = ALL["vanilla"], perturbed_params(ALL["vanilla"])

    def start(prompt: list[int], segment_length: int = 16) -> None:
        generate(
            config,
            params,
            np.array(prompt, np.int32),
            num_tokens=10,
            vocab_size=23,
            sampling=GREEDY,
            seed=0,
            segment_length=segment_length,
        )

    with pytest.raises(InputError, match="prompt: empty"):
        start([])
    with pytest.raises(InputError, match="token 23 is outside the vocabulary of 23"):
        start([1, 23])
    with pytest.raises(InputError, match="at most its segment length, 10"):
        start([1, 2], segment_length=10)
