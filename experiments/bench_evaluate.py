"""Evaluation against training, tokens per second on the same model, batch and machine: `make bench-evaluate`.

Both run in turns, so that other work on the machine meets both; compilation is not counted. Writes what it measured to
a JSON file and exits with 1 if evaluation is less than 2.5 times as fast as training. Takes about two minutes.
"""

import argparse
import functools
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from etils import epath

from block_recurrent.analysis.batch_scoring import Placement, carried, score, segment_batch
from block_recurrent.analysis.passes import Shape, Workplace
from block_recurrent.config import ModelConfig, OptimizerConfig, PrepareConfig
from block_recurrent.data.batches import BatchReader
from block_recurrent.data.prepare import available_cores, prepare
from block_recurrent.data.schedule import DocumentSchedule
from block_recurrent.data.store import TokenStore
from block_recurrent.optimizer import make_optimizer
from block_recurrent.train_step import init_train_state, train_step

BOUND = 2.5
ROWS, SEGMENT = 4, 512
# The quickstart's: gin/models/laptop.gin.
MODEL = ModelConfig(
    vocab_size=260,
    embed_dim=128,
    num_layers=4,
    num_heads=2,
    head_dim=64,
    mlp_dim=512,
    window_length=128,
    recurrent_layers=(2,),
    num_states=64,
)


def trainer(store: TokenStore) -> Callable[[int], None]:
    """Takes training steps on the split's documents."""
    optimizer = make_optimizer(OptimizerConfig(), 1000)
    take_step = jax.jit(functools.partial(train_step, MODEL, optimizer), donate_argnums=0)
    state = init_train_state(MODEL, optimizer, seed=0, batch_size=ROWS)
    schedule = DocumentSchedule(store.lengths, batch_size=ROWS, segment_length=SEGMENT, seed=0)
    reader = BatchReader(store, schedule, segment_length=SEGMENT)

    def run(steps: int) -> None:
        nonlocal state
        with reader.prefetch(0, steps) as batches:
            for batch in batches:
                state, metrics = take_step(state, jax.tree.map(jax.numpy.asarray, segment_batch(batch)))
            jax.block_until_ready((state, metrics))

    return run


def evaluator(store: TokenStore) -> Callable[[int], None]:
    """Scores the same batches, every token for itself, as `evaluate` does."""
    placement, method = Placement(), carried(MODEL)
    state = init_train_state(MODEL, make_optimizer(OptimizerConfig(), 1000), seed=0, batch_size=ROWS)
    params = placement.replicate(state.params)
    schedule = DocumentSchedule(store.lengths, batch_size=ROWS, segment_length=SEGMENT, seed=0)
    reader = BatchReader(store, schedule, segment_length=SEGMENT)

    def run(steps: int) -> None:
        with reader.prefetch(0, steps) as batches:
            for _ in score(method, params, placement.init(method, params, ROWS), batches, placement):
                pass

    return run


def rate(run: Callable[[int], None], steps: int) -> float:
    start = time.perf_counter()
    run(steps)
    return steps * ROWS * SEGMENT / (time.perf_counter() - start)


def whole_pass(store: TokenStore) -> float:
    """Scored tokens per second of a whole resumable pass over the split, compilation and saving included."""
    params = init_train_state(MODEL, make_optimizer(OptimizerConfig(), 1000), seed=0, batch_size=ROWS).params
    with tempfile.TemporaryDirectory() as name, Workplace(epath.Path(name), {}).opened() as workplace:
        start = time.perf_counter()
        shape = Shape(batch_size=ROWS, segment_length=SEGMENT)
        nats = workplace.run(carried(MODEL), params, store, shape, placement=Placement())
        return len(nats.values) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluation's throughput against training's.")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps a turn; evaluation takes twice as many")
    parser.add_argument("--output", default="experiments/results/bench_evaluate.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        prepare(PrepareConfig(source="python_stdlib", store=name, splits=("validation",)))
        store = TokenStore.open(Path(name) / "validation")
        train, evaluate = trainer(store), evaluator(store)
        train(2), evaluate(2)  # compilation
        pairs = [(rate(train, arguments.steps), rate(evaluate, 2 * arguments.steps)) for _ in range(arguments.turns)]
        whole = whole_pass(store)
    ratio = float(np.median([fast / slow for slow, fast in pairs]))
    record = {
        "model": "gin/models/laptop.gin",
        "rows": ROWS,
        "segment_length": SEGMENT,
        "cores": available_cores(),
        "machine": platform.machine(),
        "jax": jax.__version__,
        "training_tokens_per_second": [round(slow) for slow, _ in pairs],
        "evaluation_tokens_per_second": [round(fast) for _, fast in pairs],
        "median_ratio": ratio,
        "bound": BOUND,
        "met": ratio >= BOUND,
        "whole_pass_tokens_per_second": round(whole),
    }
    print(json.dumps(record, indent=1))
    Path(arguments.output).write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(not record["met"])


if __name__ == "__main__":
    main()
