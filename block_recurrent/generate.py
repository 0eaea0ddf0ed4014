"""Sampling with the recurrent state carried along."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.model import apply, init_state
from block_recurrent.state import ModelState
from block_recurrent.typing import Key, Params, Tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: divides the logits; 0 takes the most probable token.
        top_k: only the k most probable tokens stay; 0 keeps all.
        top_p: only the most probable tokens with this much probability together stay; 1 keeps all.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not self.temperature >= 0:
            raise InputError(f"temperature = {self.temperature!r}: must be at least 0")
        if self.top_k < 0:
            raise InputError(f"top_k = {self.top_k!r}: must be at least 0 (0 keeps all tokens)")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p = {self.top_p!r}: must be above 0 and at most 1")


def generate(
    config: ModelConfig,
    params: Params,
    prompt: np.ndarray,
    *,
    num_tokens: int,
    vocab_size: int,
    sampling: Sampling,
    seed: int,
    segment_length: int | None = None,
) -> Iterator[int]:
    """Continues a prompt, token by token.

    Whole blocks go into the state; the block being written is run again for each of its tokens: attention is causal, so
    its earlier positions stay as they were.

    Args:
        config: the model.
        params: its parameters.
        prompt: (T,) token ids, at least one.
        num_tokens: how many to sample.
        vocab_size: ids from here on are rows of the table without a meaning, and are never drawn.
        sampling: how to draw.
        seed: of the draws.
        segment_length: without a window, the length the model was trained on, which prompt and continuation together
            may not exceed.

    Raises:
        InputError: the prompt is empty or has ids outside the vocabulary, or there is no room for the continuation.
    """
    block_length = _check(config, prompt, num_tokens, vocab_size, segment_length)
    return _generate(config, params, prompt, num_tokens, vocab_size, sampling, jax.random.key(seed), block_length)


def _check(
    config: ModelConfig, prompt: np.ndarray, num_tokens: int, vocab_size: int, segment_length: int | None
) -> int:
    if not len(prompt):
        raise InputError("prompt: empty; the model needs at least one token to continue")
    if prompt.min() < 0 or prompt.max() >= vocab_size:
        raise InputError(f"prompt: token {int(prompt.max())} is outside the vocabulary of {vocab_size}")
    if config.window_length is not None:
        return config.window_length
    length = segment_length or 0
    if len(prompt) + num_tokens > length + 1:  # the last token is drawn but not read
        raise InputError(
            f"prompt of {len(prompt)} and {num_tokens} new tokens: a model without a window reads at most its segment "
            f"length, {length}"
        )
    return length


def _generate(
    config: ModelConfig,
    params: Params,
    prompt: np.ndarray,
    num_tokens: int,
    vocab_size: int,
    sampling: Sampling,
    key: Key,
    block_length: int,
) -> Iterator[int]:
    state = init_state(config, params, 1)
    block = np.zeros((1, block_length), np.int32)
    tokens, filled, position = list(prompt), 0, 0
    for index in range(num_tokens):
        logits = None
        while position < len(tokens):
            fresh = tokens[position : position + block_length - filled]
            block = block.copy()  # the device may still be reading the one before
            block[0, filled : filled + len(fresh)] = fresh
            filled, position = filled + len(fresh), position + len(fresh)
            logits, next_state = _run_block(config, params, state, jnp.asarray(block), filled - 1)
            if filled == block_length and config.window_length is not None:
                state, filled = next_state, 0
        assert logits is not None
        token = int(sample(jax.random.fold_in(key, index), logits[:vocab_size], sampling))
        yield token
        tokens, position = [token], 0


@functools.partial(jax.jit, static_argnums=0)
def _run_block(
    config: ModelConfig, params: Params, state: ModelState, block: Tokens, position: Int[Array, ""]
) -> tuple[Float[Array, "V"], ModelState]:
    """Logits behind one position of a block, and the state behind all of it (true only of a full block)."""
    output = apply(config, params, block, state)
    return output.logits[0, position], output.state


@functools.partial(jax.jit, static_argnums=2)
def sample(key: Key, logits: Float[Array, "V"], sampling: Sampling) -> Int[Array, ""]:
    """Draws a token. Of equally probable tokens at the edge of `top_k` or `top_p`, all stay."""
    if sampling.temperature == 0:
        return jnp.argmax(logits)
    logits = logits / sampling.temperature
    descending = jnp.sort(logits, descending=True)
    if 0 < sampling.top_k < len(logits):
        logits = jnp.where(logits >= descending[sampling.top_k - 1], logits, -jnp.inf)
        descending = jnp.where(jnp.arange(len(logits)) < sampling.top_k, descending, -jnp.inf)
    if sampling.top_p < 1:
        probabilities = jax.nn.softmax(descending)
        before = jnp.cumsum(probabilities) - probabilities
        least = jnp.min(jnp.where(before < sampling.top_p, descending, jnp.inf))
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    return jax.random.categorical(key, logits)
