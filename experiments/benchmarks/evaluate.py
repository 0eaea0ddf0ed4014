"""Measures evaluation against training on the quickstart's model, batch and machine: `make bench-evaluate`.

Training runs alternate with whole passes over the validation split, so that other work on the machine affects both. The
rate of training is that of the loop's log. The rate of evaluation is the number of scored tokens over the seconds of a
pass from its first batch to its last result, including idle rows at its end and saving. Neither includes compilation.
Writes the results to a JSON file and exits with 1 if a bound is missed. Takes about 4 minutes on 2 cores.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from etils import epath
from rich.console import Console

from block_recurrent.config import RunConfig
from block_recurrent.data.store.open_split import open_split
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.evaluation.passes import ResumablePasses, Shape
from block_recurrent.evaluation.scorer import Placement, carried
from block_recurrent.model.language_model import init_params
from block_recurrent.training.loop import train
from block_recurrent.training.metric_writer import read_metrics
from block_recurrent.typing import Params
from experiments.benchmarks.benchmark import Result, judge
from experiments.benchmarks.train import quickstart

STEPS = 60  # of a training run
LOG_EVERY = 10
ROUNDS = 3


def training_rate(run: RunConfig) -> float:
    """Returns the median tokens per second of a run's log, without the first line, which includes compilation."""
    settings = dataclasses.replace(run.train, num_steps=STEPS, log_every=LOG_EVERY, eval_steps=1)
    with tempfile.TemporaryDirectory() as folder:
        workdir = epath.Path(folder) / "run"
        train(dataclasses.replace(run, train=settings), workdir, Console(quiet=True))
        lines = [line for line in read_metrics(workdir) if line["group"] == "speed"][1:]
    return statistics.median(line["tokens_per_second"] for line in lines)


def evaluation_rate(run: RunConfig, params: Params, store: TokenStore) -> float:
    """Returns the scored tokens per second of a whole resumable pass."""
    shape = Shape(batch_size=run.data.batch_size, segment_length=run.data.segment_length)
    with tempfile.TemporaryDirectory() as folder, ResumablePasses(epath.Path(folder), {}).locked() as passes:
        start = time.perf_counter()
        losses = passes.run(carried(run.model), params, store, shape, placement=Placement())
        return len(losses.values) / (time.perf_counter() - start)


def bench(run: RunConfig) -> Iterator[Result]:
    store = open_split(run.data, "validation", vocab_size=run.model.vocab_size)
    params = init_params(run.model, jax.random.key(0))
    evaluation_rate(run, params, store)  # compiles
    pairs = [(training_rate(run), evaluation_rate(run, params, store)) for _ in range(ROUNDS)]
    for slow, fast in pairs:
        print(f"     training {slow:,.0f} tokens/s, evaluation {fast:,.0f} tokens/s", flush=True)
    ratio = statistics.median(fast / slow for slow, fast in pairs)
    yield Result("evaluation against training, tokens/s", ratio, "times", 2.5, at_least=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures evaluation against training on the quickstart's model.")
    parser.add_argument("--output", default="experiments/benchmarks/results/evaluate.json")
    arguments = parser.parse_args()
    judge(bench(quickstart()), Path(arguments.output), jax=jax.__version__, device=jax.devices()[0].device_kind)


if __name__ == "__main__":
    main()
