"""The official code's evaluation protocol, for comparison with its logs."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from block_recurrent.config import ModelConfig
from block_recurrent.data.batching.batches import Batch, BatchReader
from block_recurrent.data.batching.meliad_schedule import OfficialSchedule
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.evaluation.passes import Shape
from block_recurrent.evaluation.scorer import carried, score
from block_recurrent.parallel.placement import Placement
from block_recurrent.parallel.processes import total_of_processes
from block_recurrent.typing import Params


def score_as_official_code(
    config: ModelConfig,
    params: Params,
    store: TokenStore,
    shape: Shape,
    *,
    segments: int,
    placement: Placement,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Scores the first segments of every row with the official code's masks.

    Args:
        config: the model.
        params: parameters of the model.
        store: the split.
        shape: shape of the batches; the result depends on it.
        segments: segments per row.
        placement: the devices.
        progress: called with the steps done and all steps.

    Returns:
        The fields of `results.OfficialScores` other than the header.
    """
    schedule = OfficialSchedule(
        store.lengths, batch_size=shape.batch_size, segment_length=shape.segment_length, num_steps=segments
    )
    method, params = carried(config), placement.put_params(params)
    total, tokens = 0.0, 0
    rows = placement.local_rows(shape.batch_size)
    reader = BatchReader(store, schedule, segment_length=shape.segment_length, rows=rows)
    with reader.prefetch(0, segments) as batches:
        state = placement.init(method.init, params, shape.batch_size)
        for scored in score(method, params, state, map(masked, batches), placement, shape.batch_size):
            total += float(scored.losses.sum(dtype=np.float64))
            tokens += int(scored.batch.weights.sum())
            progress(scored.step + 1, segments)
    tokens = total_of_processes(tokens)
    scorable = np.maximum(store.lengths - 1, 0)
    one_pass = (scorable - scorable // shape.segment_length).sum()
    return {
        "rows": shape.batch_size,
        "segment_length": shape.segment_length,
        "segments": segments,
        "passes": float(tokens / one_pass),
        "tokens": tokens,
        "nats": total,
        "bits_per_token": total / math.log(2) / tokens,
        "token_perplexity": math.exp(total / tokens),
    }


def masked(batch: Batch) -> Batch:
    """Masks the last target of the segment, and targets with id 0 or an input with id 0."""
    weights = batch.weights * ((batch.tokens != 0) & (batch.targets != 0))
    weights[:, -1] = 0
    return dataclasses.replace(batch, weights=weights.astype(np.float32))
