"""Scores of texts: the loss of each token given all tokens before it."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig
from block_recurrent.generation.decode_state import DecodeState
from block_recurrent.generation.prefill import end_block, run_block
from block_recurrent.generation.text_to_score import TextToScore
from block_recurrent.model.language_model import apply, bind, init_state
from block_recurrent.model.loss import cross_entropy
from block_recurrent.model.state import ModelState
from block_recurrent.parallel.placement import Placement, to_host
from block_recurrent.typing import Params, Tokens

_State = TypeVar("_State", ModelState, DecodeState)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """The score of one text.

    Attributes:
        text: index of the text, from 0.
        tokens: ids of the scored tokens.
        nats: loss of each scored token, minus its log-probability.
        bytes: number of bytes of text that the scored tokens cover.
    """

    text: int
    tokens: tuple[int, ...]
    nats: tuple[float, ...]
    bytes: int

    @property
    def log_probability(self) -> float:
        """Log-probability of all scored tokens, in nats."""
        return -sum(self.nats)

    @property
    def bits_per_token(self) -> float:
        """Mean loss of the scored tokens, in bits."""
        return sum(self.nats) / math.log(2) / len(self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """Total loss in bits, divided by the bytes of the scored tokens."""
        return sum(self.nats) / math.log(2) / self.bytes

    def as_dict(self) -> dict[str, Any]:
        """Returns all fields and the derived scores, for JSON."""
        names = ("log_probability", "bits_per_token", "bits_per_byte")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in names}


def score_rows(
    config: ModelConfig,
    params: Params,
    texts: list[TextToScore],
    context: DecodeState | None,
    *,
    batch_size: int,
    segment_length: int,
    placement: Placement | None = None,
) -> Iterator[Score]:
    """Scores texts in groups of `batch_size`, segment by segment; see `Generator.score`.

    Args:
        config: the model.
        params: its parameters.
        texts: each with at least 2 tokens, or at least 1 after a context.
        context: a state of one row before all texts; None starts a document with each text.
        batch_size: number of texts in a group.
        segment_length: number of tokens in a segment, a multiple of the window.
        placement: the devices; None means one device.
    """
    size = min(batch_size, len(texts))
    for first in range(0, len(texts), max(size, 1)):
        group = texts[first : first + size]
        padded = group + group[:1] * (size - len(group))
        row_losses = _score_group(config, params, [text.ids for text in padded], context, segment_length, placement)
        for number, (text, losses) in enumerate(zip(group, row_losses, strict=False), first):
            scored = text.ids[len(text.ids) - len(losses) :]
            yield Score(
                text=number, tokens=tuple(scored.tolist()), nats=tuple(losses.tolist()), bytes=text.scored_bytes
            )


def _score_group(
    config: ModelConfig,
    params: Params,
    texts: list[np.ndarray],
    context: DecodeState | None,
    segment_length: int,
    placement: Placement | None,
) -> list[np.ndarray]:
    """Returns the losses of each text's scored tokens.

    The tokens that the context already has in its block are computed again, before each text.
    """
    pending = np.zeros(0, np.int32) if context is None else to_host(context.tokens)[0, : to_host(context.filled)[0]]
    rows = [np.concatenate([pending, text]) for text in texts]
    length = max(len(row) for row in rows) - 1
    inputs = np.zeros((len(rows), -(-length // segment_length) * segment_length + 1), np.int32)
    for row, ids in zip(inputs, rows, strict=True):
        row[: len(ids)] = ids
    if context is not None and context.segment is not None:
        # The context may end within a segment, whose end decides when the external memory is written.
        score, state, size = _score_block, _repeat(_without_block(context), len(rows)), context.tokens.shape[1]
    else:
        state = init_state(config, params, len(rows)) if context is None else _repeat(context.model_state, len(rows))
        score, size = _score_segment, segment_length
    step = _with_config(score, config)
    if placement is not None:
        step, state = placement.gathering(step), placement.spread(state)
    segments = []
    for start in range(0, length, size):
        segment = inputs[:, start : start + size + 1]
        losses, state = step(params, state, segment[:, :-1], segment[:, 1:])
        segments.append(to_host(losses))
    all_losses = np.concatenate(segments, axis=1) if segments else np.zeros((len(rows), 0), np.float32)
    scored = [losses[max(len(pending) - 1, 0) : len(ids) - 1] for losses, ids in zip(all_losses, rows, strict=True)]
    if context is None or len(pending):
        return scored
    # The context ends with a block: the last token of that block predicted the text's first token.
    logits = to_host(jax.nn.log_softmax(context.logits[0]))
    return [np.concatenate([[-logits[text[0]]], losses]) for text, losses in zip(texts, scored, strict=True)]


@functools.lru_cache(maxsize=8)
def _with_config(score: Callable[..., Any], config: ModelConfig) -> Callable[..., Any]:
    """Returns the function of the other arguments; the same one each time, so that it is compiled once."""
    return functools.partial(score, config)


def _without_block(context: DecodeState) -> DecodeState:
    """Returns the state before the tokens of the current block."""
    return dataclasses.replace(context, filled=jnp.zeros_like(context.filled))


def _repeat(state: _State, rows: int) -> _State:
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], rows, axis=0), state)


def _score(
    config: ModelConfig, params: Params, state: ModelState, tokens: Tokens, targets: Tokens
) -> tuple[Float[Array, "B T"], ModelState]:
    output = apply(config, params, tokens, state)
    return cross_entropy(output.logits, targets), output.state


def _score_one_block(
    config: ModelConfig, params: Params, state: DecodeState, tokens: Tokens, targets: Tokens
) -> tuple[Float[Array, "B W"], DecodeState]:
    model = bind(config, params)
    ran, filled = run_block(model, tokens, state.model_state), jnp.full(tokens.shape[0], tokens.shape[1], jnp.int32)
    return cross_entropy(model.unembed(ran.x), targets), end_block(model, state, tokens, filled, ran)


_score_segment = jax.jit(_score, static_argnums=0)
_score_block = jax.jit(_score_one_block, static_argnums=0)
