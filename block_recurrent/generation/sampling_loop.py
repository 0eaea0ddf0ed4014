"""Drawing and reading token after token on the device, without going back to Python in between."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from block_recurrent.config import ModelConfig
from block_recurrent.generation.decode import DecodeState, end_full_blocks, full_blocks, read_token
from block_recurrent.generation.sampling import Sampling, draw
from block_recurrent.model.language_model import bind
from block_recurrent.typing import Params, RowKeys


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawn:
    """What a call of `decode_tokens` has drawn; row b's first `counts[b]` entries mean something.

    Attributes:
        tokens: (B, M) int32.
        nats: (B, M) float32, minus the model's log-probability of each, before any filter.
    """

    tokens: Int[Array, "B M"]
    nats: Float[Array, "B M"]


def decode_tokens(
    config: ModelConfig,
    sampling: Sampling,
    max_tokens: int,
    vocab_size: int,
    params: Params,
    state: DecodeState,
    keys: RowKeys,
    counts: Int[Array, "B"],
) -> tuple[Drawn, DecodeState]:
    """Draws tokens and reads them. Pure: jit it with the first four arguments static.

    The inner loop reads single tokens; the states' update, which comes once in W tokens, stands outside of it: a branch
    within would make every token pay for carrying the states' memory through it.

    Args:
        config: the model.
        sampling: how to draw.
        max_tokens: M, room for the tokens of a row.
        vocab_size: ids from here on are rows of the table without a meaning, and are never drawn.
        params: the model's parameters.
        state: where the rows stand; each has read something.
        keys: (B,) one for each row.
        counts: (B,) tokens for each row, at most M. Without a window, no more than it has slots left.

    Returns:
        What was drawn, and the state that has read all of it.
    """
    model = bind(config, params)
    meaningful = jnp.arange(config.vocab_size) < vocab_size
    limit = jnp.max(counts)

    def next_token(carry: tuple[Array, Drawn, DecodeState]) -> tuple[Array, Drawn, DecodeState]:
        step, drawn, state = carry
        logits = jnp.where(meaningful[None], state.logits, -jnp.inf)
        tokens = draw(keys, logits, sampling, position=state.position, recent=state.tokens)
        own = jnp.take_along_axis(state.logits, tokens[:, None], axis=1)[:, 0]
        nats = jax.nn.logsumexp(state.logits, axis=1) - own
        drawn = Drawn(
            tokens=jax.lax.dynamic_update_slice(drawn.tokens, tokens[:, None], (0, step)),
            nats=jax.lax.dynamic_update_slice(drawn.nats, nats[:, None], (0, step)),
        )
        return step + 1, drawn, read_token(model, state, tokens, step < counts)

    def within_blocks(carry: tuple[Array, Drawn, DecodeState]) -> Array:
        step, _, state = carry
        return (step < limit) & ~jnp.any(full_blocks(config, state))

    def to_a_blocks_end(carry: tuple[Array, Drawn, DecodeState]) -> tuple[Array, Drawn, DecodeState]:
        step, drawn, state = jax.lax.while_loop(within_blocks, next_token, carry)
        return step, drawn, end_full_blocks(model, state)

    shape = (len(counts), max_tokens)
    drawn = Drawn(tokens=jnp.zeros(shape, jnp.int32), nats=jnp.zeros(shape))
    start = (jnp.zeros((), jnp.int32), drawn, state)
    _, drawn, state = jax.lax.while_loop(lambda carry: carry[0] < limit, to_a_blocks_end, start)
    return drawn, state
