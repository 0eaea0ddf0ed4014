"""Exact evaluation: one pass over a split, every token after a document's first scored once."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from block_recurrent.config import ModelConfig
from block_recurrent.data.batches import Batch, BatchReader
from block_recurrent.data.schedule import EvaluationSchedule
from block_recurrent.data.store import TokenStore
from block_recurrent.model import init_state
from block_recurrent.train_step import SegmentBatch, eval_step
from block_recurrent.typing import Params


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Sums over the scored tokens.

    Attributes:
        nats: total cross-entropy.
        tokens: how many tokens were scored.
        documents: how many documents they belong to.
        bytes: how many bytes of text they stand for.
        complete: whether that was the whole split.
    """

    nats: float
    tokens: int
    documents: int
    bytes: float
    complete: bool

    @property
    def bits_per_token(self) -> float:
        """Mean cross-entropy of a token."""
        return self.nats / math.log(2) / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Total bits over the bytes of the scored tokens."""
        return self.nats / math.log(2) / self.bytes

    @property
    def token_perplexity(self) -> float:
        """exp(nats per token)."""
        return math.exp(self.nats / self.tokens)

    def __str__(self) -> str:
        scope = "" if self.complete else " (the first segments of each row, not the whole split)"
        return (
            f"{self.bits_per_byte:.4f} bits per byte over {self.tokens:,} scored tokens of {self.documents:,} documents"
            + scope
        )

    def as_dict(self) -> dict[str, Any]:
        """Sums and means, for JSON."""
        means = ("bits_per_byte", "bits_per_token", "token_perplexity")
        return {name: getattr(self, name) for name in means} | dataclasses.asdict(self)


def evaluate(
    config: ModelConfig,
    params: Params,
    store: TokenStore,
    *,
    batch_size: int,
    segment_length: int,
    max_steps: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Scores a split with the state carried from segment to segment, reset at every document's start.

    Args:
        config: the model.
        params: its parameters.
        store: the split.
        batch_size: documents read side by side.
        segment_length: tokens per step and row; it changes the speed, not the result.
        max_steps: stop after so many segments per row; None reads the whole split.
        report: told (steps done, steps in all).
    """
    schedule = EvaluationSchedule(store.lengths, batch_size=batch_size, segment_length=segment_length)
    num_steps = schedule.num_steps if max_steps is None else min(max_steps, schedule.num_steps)
    reader = BatchReader(store, schedule, segment_length=segment_length)
    nats, tokens = np.zeros(len(store.lengths)), np.zeros(len(store.lengths), np.int64)
    state = init_state(config, params, batch_size)
    previous: tuple[Batch, jax.Array] | None = None
    with reader.prefetch(0, num_steps) as batches:
        for step, batch in enumerate(batches):
            state, row_nats = _eval_step(config, params, state, to_device(batch))
            _add_rows(nats, tokens, previous)  # the step before: this one is still running
            previous = batch, row_nats
            report(step + 1, num_steps)
    _add_rows(nats, tokens, previous)
    return _summarise(store, nats, tokens, complete=num_steps == schedule.num_steps)


def to_device(batch: Batch) -> SegmentBatch:
    """The part of a batch that the model reads."""
    return SegmentBatch(
        tokens=jnp.asarray(batch.tokens),
        targets=jnp.asarray(batch.targets),
        weights=jnp.asarray(batch.weights),
        start_of_document=jnp.asarray(batch.start_of_document),
    )


_eval_step = jax.jit(eval_step, static_argnums=0, donate_argnums=2)


def _add_rows(nats: np.ndarray, tokens: np.ndarray, scored: tuple[Batch, jax.Array] | None) -> None:
    if scored is None:
        return
    batch, row_nats = scored
    busy = batch.document >= 0
    np.add.at(nats, batch.document[busy], np.asarray(row_nats, np.float64)[busy])
    np.add.at(tokens, batch.document[busy], batch.weights.sum(axis=1).astype(np.int64)[busy])


def _summarise(store: TokenStore, nats: np.ndarray, tokens: np.ndarray, *, complete: bool) -> Evaluation:
    seen = tokens > 0
    # A document's bytes, without its first token's, which is read but not scored. Of a document that was not read to
    # its end, the share of its tokens.
    share = tokens[seen] / (store.lengths[seen] - 1)
    scored_bytes = (store.bytes[seen] - store.first_token_bytes[seen]) * share
    return Evaluation(
        nats=float(nats.sum()),
        tokens=int(tokens.sum()),
        documents=int(seen.sum()),
        bytes=float(scored_bytes.sum()),
        complete=complete,
    )
