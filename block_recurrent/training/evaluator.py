"""Evaluation during training: one exact pass over a split that scores every token after a document's first once.

Parameters stay sharded over the run's mesh, each process reads its own rows, and only two sums for each row leave the
devices. The package `evaluation` keeps the loss of every token and can be interrupted; a test compares the two.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from block_recurrent.config import ModelConfig
from block_recurrent.data.batching.batches import Batch, BatchReader
from block_recurrent.data.batching.schedule import EvaluationSchedule, busy_rows
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.model.language_model import init_params, init_state
from block_recurrent.parallel.compiler_options import compiler_options
from block_recurrent.parallel.kernels import with_kernels
from block_recurrent.parallel.sharding import local_rows, place_rows, replicated, row_shards, shardings
from block_recurrent.progress import ProgressCallback
from block_recurrent.training.step import SegmentBatch, eval_step
from block_recurrent.typing import Params


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Sums over the scored tokens.

    Attributes:
        nats: sum of the token losses, in nats.
        tokens: number of scored tokens.
        documents: number of documents with scored tokens.
        bytes: bytes of text of the scored tokens.
        complete: True if the whole split was scored.
    """

    nats: float
    tokens: int
    documents: int
    bytes: float
    complete: bool

    @property
    def bits_per_token(self) -> float:
        """Mean loss of a token, in bits."""
        return self.nats / math.log(2) / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Sum of the losses in bits, divided by the bytes of the scored tokens."""
        return self.nats / math.log(2) / self.bytes

    @property
    def token_perplexity(self) -> float:
        """Exponential of the mean loss of a token in nats."""
        return math.exp(self.nats / self.tokens)

    def __str__(self) -> str:
        scope = "" if self.complete else " (the first segments of each row, not the whole split)"
        return (
            f"{self.bits_per_byte:.4f} bits per byte over {self.tokens:,} scored tokens of {self.documents:,} documents"
            + scope
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns sums and means as a dictionary for JSON."""
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
    progress: ProgressCallback = lambda done, total: None,
) -> Evaluation:
    """Scores a split; the state is carried from segment to segment and reset at the start of every document.

    All processes must call this together.

    Args:
        config: the model configuration.
        params: the parameters.
        store: the split.
        mesh: the devices.
        batch_size: number of documents scored in parallel; rounded up to a multiple that the mesh divides.
        segment_length: tokens of a row in one step. Like the number of rows, it changes the speed and not the result
            unless `config.depends_on_segments`; a whole split is scored with fewer rows of longer segments where rows
            would be idle (`busy_rows`).
        max_steps: number of segments of each row to score; None scores the whole split.
        progress: called with the numbers of steps done and of all steps; its exceptions end the evaluation.
    """
    batch_size = -(-batch_size // row_shards(mesh)) * row_shards(mesh)
    if max_steps is None and not config.depends_on_segments:
        rows = busy_rows(store.lengths, batch_size, row_shards(mesh))
        batch_size, segment_length = rows, segment_length * (batch_size // rows)
    schedule = EvaluationSchedule(store.lengths, batch_size=batch_size, segment_length=segment_length)
    num_steps = schedule.num_steps if max_steps is None else min(max_steps, schedule.num_steps)
    reader = BatchReader(store, schedule, segment_length=segment_length, rows=local_rows(mesh, batch_size))
    losses, tokens = np.zeros(len(store.lengths)), np.zeros(len(store.lengths), np.int64)
    params = jax.device_put(params, shardings(mesh, params))  # no copy if they are sharded like this already
    initialise, take_step = jit_evaluation(config, mesh, batch_size)
    state = initialise(params)
    previous: tuple[np.ndarray, Any] | None = None
    with reader.prefetch(0, num_steps) as batches:
        for step, batch in enumerate(batches):
            state, *sums = take_step(params, state, to_device(mesh, batch, batch_size))
            _add_rows(losses, tokens, previous)  # of the step before; this one is still running
            previous = schedule.locate(step).document, sums
            progress(step + 1, num_steps)
    _add_rows(losses, tokens, previous)
    return _summarise(store, losses, tokens, complete=num_steps == schedule.num_steps)


def to_device(mesh: Mesh, batch: Batch, batch_size: int) -> SegmentBatch:
    """Puts the model's inputs of a batch on the devices of all processes.

    Args:
        mesh: the devices.
        batch: the rows of this process.
        batch_size: number of rows of all processes.
    """
    inputs: Any = (batch.tokens, batch.targets, batch.weights, batch.start_of_document)  # numpy arrays until placed
    return place_rows(mesh, SegmentBatch(*inputs), batch_size)


@functools.lru_cache(maxsize=8)
def jit_evaluation(config: ModelConfig, mesh: Mesh, batch_size: int) -> tuple[Any, Any]:
    """Returns the jitted functions that initialise the state and take a step; cached between evaluations."""
    abstract = jax.eval_shape(lambda: init_state(config, init_params(config, jax.random.key(0)), batch_size))
    sharded, whole = shardings(mesh, abstract), replicated(mesh)
    initialise = jax.jit(lambda params: init_state(config, params, batch_size), out_shardings=sharded)
    step = jax.jit(
        with_kernels(mesh, config, functools.partial(eval_step, config)),
        donate_argnums=1,
        out_shardings=(sharded, whole, whole),
        compiler_options=compiler_options(mesh.devices.flat[0].platform, forward_only=True),
    )
    return initialise, step


def _add_rows(losses: np.ndarray, tokens: np.ndarray, scored: tuple[np.ndarray, Any] | None) -> None:
    if scored is None:
        return
    document, (row_losses, row_tokens) = scored
    busy = document >= 0
    np.add.at(losses, document[busy], np.asarray(row_losses, np.float64)[busy])
    np.add.at(tokens, document[busy], np.asarray(row_tokens).astype(np.int64)[busy])


def _summarise(store: TokenStore, losses: np.ndarray, tokens: np.ndarray, *, complete: bool) -> Evaluation:
    seen = tokens > 0
    # The first token of a document is not scored, so its bytes do not count. A document that was not scored to its end
    # counts by the share of its scored tokens.
    share = tokens[seen] / (store.lengths[seen] - 1)
    scored_bytes = (store.bytes[seen] - store.first_token_bytes[seen]) * share
    return Evaluation(
        nats=float(losses.sum()),
        tokens=int(tokens.sum()),
        documents=int(seen.sum()),
        bytes=float(scored_bytes.sum()),
        complete=complete,
    )
