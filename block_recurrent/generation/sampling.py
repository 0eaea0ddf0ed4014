"""Sampling of the next token from the model's logits: temperature and filters."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt

from block_recurrent.errors import InputError
from block_recurrent.typing import RowKeys


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Temperature and filters, in the order in which they are applied to the logits.

    Attributes:
        repetition_penalty: divides the positive logits and multiplies the negative logits of the last W tokens (Keskar
            et al. 2019); 1 changes nothing.
        temperature: divides the logits; 0 takes the most probable token and skips the other filters.
        top_k: keeps the k most probable tokens; 0 keeps all.
        top_p: keeps the smallest set of most probable tokens with at least this total probability (Holtzman et al.
            2020); 1 keeps all.
        min_p: keeps tokens whose probability is at least this fraction of the highest one; 0 keeps all.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        self._check("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0 (1 changes nothing)")
        self._check("temperature", 0 <= self.temperature < math.inf, "at least 0")
        self._check("top_k", self.top_k >= 0, "at least 0 (0 keeps all tokens)")
        self._check("top_p", 0 < self.top_p <= 1, "above 0 and at most 1")
        self._check("min_p", 0 <= self.min_p <= 1, "at least 0 (0 keeps all tokens) and at most 1")

    def _check(self, field: str, allowed: bool, rule: str) -> None:
        if not allowed:
            raise InputError(f"{field} = {getattr(self, field)!r}: must be {rule}")


GREEDY = Sampling(temperature=0.0)


def row_keys(seed: int, samples: list[int]) -> RowKeys:
    """Returns a key for each row (B,), from the seed and the number of the row's sample only."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.asarray(samples))


def sampling_noise(
    keys: RowKeys, sampling: Sampling, position: UInt[Array, "B"], vocab_size: int
) -> Float[Array, "B V"]:
    """Returns the random numbers for one token of each row; zeros at temperature 0.

    They depend on nothing but their arguments, so those of many tokens can be drawn together.

    Args:
        keys: (B,) one for each row. They stay the same for all tokens; the position is folded in here.
        sampling: the temperature.
        position: number of tokens before this one in each row.
        vocab_size: V.
    """
    if sampling.temperature == 0:
        return jnp.zeros((len(keys), vocab_size))
    keys = jax.vmap(jax.random.fold_in)(keys, position)
    return jax.vmap(lambda key: jax.random.gumbel(key, (vocab_size,)))(keys)


def sample(
    noise: Float[Array, "B V"], logits: Float[Array, "B V"], sampling: Sampling, *, recent: Int[Array, "B W"]
) -> Int[Array, "B"]:
    """Samples a token for each row: the largest sum of filtered logit and Gumbel noise, as `jax.random.categorical`.

    Args:
        noise: result of `sampling_noise`.
        logits: the model's predictions; -inf for tokens that must not be sampled.
        sampling: temperature and filters.
        recent: the last tokens of each row, for the repetition penalty; -1 in empty slots.
    """
    if sampling.repetition_penalty != 1:
        logits = _penalise(logits, recent, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return _argmax(logits)
    logits = logits / sampling.temperature
    for keep in _filters(sampling, logits.shape[-1]):
        logits = jnp.where(keep(logits), logits, -jnp.inf)
    return _argmax(noise + logits)


def _argmax(x: Float[Array, "B V"]) -> Int[Array, "B"]:
    """Returns the first index of each row's maximum; two simple reductions, because XLA on CPU argmaxes one by one."""
    index = jnp.where(x == jnp.max(x, axis=1, keepdims=True), jnp.arange(x.shape[1])[None], x.shape[1] - 1)
    return jnp.min(index, axis=1).astype(jnp.int32)


def _penalise(logits: Float[Array, "B V"], recent: Int[Array, "B W"], penalty: float) -> Float[Array, "B V"]:
    rows = jnp.arange(len(logits))[:, None]
    index = jnp.where(recent < 0, logits.shape[1], recent)  # out of range: dropped
    seen = jnp.zeros(logits.shape, bool).at[rows, index].set(True, mode="drop")
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def _filters(sampling: Sampling, vocab_size: int) -> list[Callable[[Float[Array, "B V"]], Array]]:
    """Returns the filters in use: functions from logits to a mask of the tokens to keep."""

    def top_k(logits: Float[Array, "B V"]) -> Array:
        return logits >= jax.lax.top_k(logits, sampling.top_k)[0][:, -1:]

    def top_p(logits: Float[Array, "B V"]) -> Array:
        descending = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(descending, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        least = jnp.min(jnp.where(before < sampling.top_p, descending, jnp.inf), axis=-1, keepdims=True)
        return logits >= least

    def min_p(logits: Float[Array, "B V"]) -> Array:
        return logits >= jnp.max(logits, axis=-1, keepdims=True) + math.log(sampling.min_p)

    used = [
        (0 < sampling.top_k < vocab_size, top_k),
        (sampling.top_p < 1, top_p),
        (sampling.min_p > 0, min_p),
    ]
    return [keep for wanted, keep in used if wanted]
