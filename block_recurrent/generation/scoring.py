"""What texts cost: the cross-entropy of each of their tokens, given all before it."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig
from block_recurrent.generation.decode import DecodeState
from block_recurrent.model.language_model import apply, init_state
from block_recurrent.model.loss import cross_entropy
from block_recurrent.model.state import ModelState
from block_recurrent.typing import Params, Tokens


@dataclasses.dataclass(frozen=True)
class TextToScore:
    """A text's ids and how many of its bytes the scored ones stand for."""

    ids: np.ndarray
    scored_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """Of one text.

    Attributes:
        text: its number, from 0.
        tokens: ids of the scored tokens.
        nats: of each, minus its log-probability.
        bytes: how many bytes of text they stand for.
    """

    text: int
    tokens: tuple[int, ...]
    nats: tuple[float, ...]
    bytes: int

    @property
    def log_probability(self) -> float:
        """Of the scored tokens together, in nats."""
        return -sum(self.nats)

    @property
    def bits_per_token(self) -> float:
        """Mean cost of a scored token."""
        return sum(self.nats) / math.log(2) / len(self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """Total bits over the bytes of the scored tokens."""
        return sum(self.nats) / math.log(2) / self.bytes

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
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
) -> Iterator[Score]:
    """Scores texts, `batch_size` at a time, segment by segment; see `Generator.score`."""
    size = min(batch_size, len(texts))
    for first in range(0, len(texts), max(size, 1)):
        group = texts[first : first + size]
        padded = group + group[:1] * (size - len(group))
        nats = _score_group(config, params, [text.ids for text in padded], context, segment_length)
        for number, (text, costs) in enumerate(zip(group, nats, strict=False), first):
            scored = text.ids[len(text.ids) - len(costs) :]
            yield Score(text=number, tokens=tuple(scored.tolist()), nats=tuple(costs.tolist()), bytes=text.scored_bytes)


def _score_group(
    config: ModelConfig, params: Params, texts: list[np.ndarray], context: DecodeState | None, segment_length: int
) -> list[np.ndarray]:
    """The scored tokens' nats of each text."""
    pending = np.zeros(0, np.int32) if context is None else np.asarray(context.tokens)[0, : int(context.filled[0])]
    rows = [np.concatenate([pending, text]) for text in texts]
    length = max(len(row) for row in rows) - 1
    inputs = np.zeros((len(rows), -(-length // segment_length) * segment_length + 1), np.int32)
    for row, ids in zip(inputs, rows, strict=True):
        row[: len(ids)] = ids
    memory = init_state(config, params, len(rows)) if context is None else _repeat(context.memory, len(rows))
    pieces = []
    for start in range(0, length, segment_length):
        piece = inputs[:, start : start + segment_length + 1]
        nats, memory = _score_segment(config, params, memory, piece[:, :-1], piece[:, 1:])
        pieces.append(np.asarray(nats))
    costs = np.concatenate(pieces, axis=1) if pieces else np.zeros((len(rows), 0), np.float32)
    scored = [cost[max(len(pending) - 1, 0) : len(ids) - 1] for cost, ids in zip(costs, rows, strict=True)]
    if context is None or len(pending):
        return scored
    # Nothing of the block was read yet: the first token was predicted by the last of the block before.
    logits = np.asarray(jax.nn.log_softmax(context.logits[0]))
    return [np.concatenate([[-logits[text[0]]], cost]) for text, cost in zip(texts, scored, strict=True)]


def _repeat(memory: ModelState, rows: int) -> ModelState:
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], rows, axis=0), memory)


def _score(
    config: ModelConfig, params: Params, memory: ModelState, tokens: Tokens, targets: Tokens
) -> tuple[Float[Array, "B T"], ModelState]:
    output = apply(config, params, tokens, memory)
    return cross_entropy(output.logits, targets), output.state


_score_segment = jax.jit(_score, static_argnums=0)
