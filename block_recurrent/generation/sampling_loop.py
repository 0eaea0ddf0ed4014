"""The decode loop: samples and processes token after token on the device, without returning to Python in between."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from block_recurrent.config import ModelConfig
from block_recurrent.generation.decode_state import DecodeState, full_blocks
from block_recurrent.generation.decode_step import decode_token, end_full_blocks, fused_kernels
from block_recurrent.generation.sampling import Sampling, sample, sampling_noise
from block_recurrent.model.language_model import bind
from block_recurrent.typing import Params, RowKeys


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SampledTokens:
    """Tokens sampled by one call of `sample_tokens`; of row b only the first `counts[b]` entries are valid.

    Attributes:
        tokens: (B, M) int32.
        losses: (B, M) float32, minus the model's log-probability of each token before any filter, in nats.
    """

    tokens: Int[Array, "B M"]
    losses: Float[Array, "B M"]


def sample_tokens(
    config: ModelConfig,
    sampling: Sampling,
    max_tokens: int,
    vocab_size: int,
    params: Params,
    state: DecodeState,
    keys: RowKeys,
    counts: Int[Array, "B"],
) -> tuple[SampledTokens, DecodeState]:
    """Samples tokens and processes them. Pure; jit it with the first four arguments static.

    The inner loop processes single tokens. The update of the recurrent states, once in W tokens, runs in the outer
    loop: as a branch in the inner loop it would carry the recurrent states through every token.

    Args:
        config: the model.
        sampling: temperature and filters.
        max_tokens: M, the largest number of tokens in a row.
        vocab_size: ids from here on are padding rows of the embedding table and are never sampled.
        params: the model's parameters.
        state: the state before the first sampled token; every row has at least one token.
        keys: (B,) one for each row.
        counts: (B,) number of tokens for each row, at most M. Without a window, at most the row's empty slots.

    Returns:
        The sampled tokens, and the state after the last one.
    """
    model = bind(config, params)
    has_meaning = jnp.arange(config.vocab_size) < vocab_size
    kernels, limit = fused_kernels(model), jnp.max(counts)
    # One draw for all tokens: token after token, the random numbers took a quarter of the time on CPU.
    noise = jax.vmap(lambda step: sampling_noise(keys, sampling, state.position + step, config.vocab_size))(
        jnp.arange(max_tokens, dtype=jnp.uint32)
    )

    def next_token(carry: tuple[Array, SampledTokens, DecodeState]) -> tuple[Array, SampledTokens, DecodeState]:
        step, sampled, state = carry
        logits = jnp.where(has_meaning[None], state.logits, -jnp.inf)
        tokens = sample(noise[step], logits, sampling, recent=state.tokens)
        own = jnp.take_along_axis(state.logits, tokens[:, None], axis=1)[:, 0]
        losses = jax.nn.logsumexp(state.logits, axis=1) - own
        sampled = SampledTokens(
            tokens=jax.lax.dynamic_update_slice(sampled.tokens, tokens[:, None], (0, step)),
            losses=jax.lax.dynamic_update_slice(sampled.losses, losses[:, None], (0, step)),
        )
        return step + 1, sampled, decode_token(model, state, tokens, step < counts, kernels)

    def within_blocks(carry: tuple[Array, SampledTokens, DecodeState]) -> Array:
        step, _, state = carry
        return (step < limit) & ~jnp.any(full_blocks(config, state))

    def to_end_of_block(carry: tuple[Array, SampledTokens, DecodeState]) -> tuple[Array, SampledTokens, DecodeState]:
        step, sampled, state = jax.lax.while_loop(within_blocks, next_token, carry)
        return step, sampled, end_full_blocks(model, state)

    shape = (len(counts), max_tokens)
    sampled = SampledTokens(tokens=jnp.zeros(shape, jnp.int32), losses=jnp.zeros(shape))
    start = (jnp.zeros((), jnp.int32), sampled, state)
    _, sampled, state = jax.lax.while_loop(lambda carry: carry[0] < limit, to_end_of_block, start)
    return sampled, state
