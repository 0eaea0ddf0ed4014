"""Evaluation during training: one exact pass over a split, every token after a document's first scored once.

The loop's own way to score: parameters stay divided over the run's mesh, each process reads its own rows, and two sums
a row are all that leaves the devices. `analysis` scores every token for itself and can be interrupted; a test compares
the two.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from block_recurrent.config import ModelConfig
from block_recurrent.data.batching.batches import Batch, BatchReader
from block_recurrent.data.batching.schedule import EvaluationSchedule
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.model.language_model import init_params, init_state
from block_recurrent.parallel.compiler_options import compiler_options
from block_recurrent.parallel.sharding import local_rows, place_rows, replicated, row_shards, shardings
from block_recurrent.training.step import SegmentBatch, eval_step
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
    mesh: Mesh,
    batch_size: int,
    segment_length: int,
    max_steps: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Scores a split with the state carried from segment to segment, reset at every document's start.

    Args:
        config: the model.
        params: its parameters.
        store: the split.
        mesh: the devices to use; all processes have to call together.
        batch_size: documents read side by side, at least; it grows to what the mesh divides.
        segment_length: tokens per step and row; it changes the speed, not the result.
        max_steps: stop after so many segments per row; None reads the whole split.
        progress: called with (steps done, steps in all); what it raises ends the evaluation.
    """
    batch_size = -(-batch_size // row_shards(mesh)) * row_shards(mesh)
    schedule = EvaluationSchedule(store.lengths, batch_size=batch_size, segment_length=segment_length)
    num_steps = schedule.num_steps if max_steps is None else min(max_steps, schedule.num_steps)
    reader = BatchReader(store, schedule, segment_length=segment_length, rows=local_rows(mesh, batch_size))
    nats, tokens = np.zeros(len(store.lengths)), np.zeros(len(store.lengths), np.int64)
    params = jax.device_put(params, shardings(mesh, params))  # free where they lie so already
    initialise, step_on = jit_evaluation(config, mesh, batch_size)
    state = initialise(params)
    previous: tuple[np.ndarray, Any] | None = None
    with reader.prefetch(0, num_steps) as batches:
        for step, batch in enumerate(batches):
            state, *sums = step_on(params, state, to_device(mesh, batch, batch_size))
            _add_rows(nats, tokens, previous)  # the step before: this one is still running
            previous = schedule.locate(step).document, sums
            progress(step + 1, num_steps)
    _add_rows(nats, tokens, previous)
    return _summarise(store, nats, tokens, complete=num_steps == schedule.num_steps)


def to_device(mesh: Mesh, batch: Batch, batch_size: int) -> SegmentBatch:
    """The part of a batch that the model reads, on the devices of all processes.

    Args:
        mesh: from `make_mesh`.
        batch: this process's rows.
        batch_size: rows of all processes.
    """
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(SegmentBatch)}
    return place_rows(mesh, SegmentBatch(**fields), batch_size)


@functools.lru_cache(maxsize=8)
def jit_evaluation(config: ModelConfig, mesh: Mesh, batch_size: int) -> tuple[Any, Any]:
    """Functions that make the first memory and that take a step; kept, because evaluation comes again and again."""
    abstract = jax.eval_shape(lambda: init_state(config, init_params(config, jax.random.key(0)), batch_size))
    memory, whole = shardings(mesh, abstract), replicated(mesh)
    initialise = jax.jit(lambda params: init_state(config, params, batch_size), out_shardings=memory)
    step = jax.jit(
        functools.partial(eval_step, config),
        donate_argnums=1,
        out_shardings=(memory, whole, whole),
        compiler_options=compiler_options(mesh.devices.flat[0].platform),
    )
    return initialise, step


def _add_rows(nats: np.ndarray, tokens: np.ndarray, scored: tuple[np.ndarray, Any] | None) -> None:
    if scored is None:
        return
    document, (row_losses, row_tokens) = scored
    busy = document >= 0
    np.add.at(nats, document[busy], np.asarray(row_losses, np.float64)[busy])
    np.add.at(tokens, document[busy], np.asarray(row_tokens).astype(np.int64)[busy])


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
