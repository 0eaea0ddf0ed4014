"""Measures training on the quickstart's model against its bounds: `make bench-train`.

What calling the compiled step costs, what the loop adds to it, how long it waits for data, and what scanned layers do
to compiling. Writes what it measured to a JSON file and exits with 1 if a bound is missed. About 4 minutes on 2 cores.
"""

import argparse
import dataclasses
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from etils import epath
from rich.console import Console

from block_recurrent.cli import gin_files
from block_recurrent.config import RunConfig
from block_recurrent.data.batching.training_data import open_training
from block_recurrent.parallel.sharding import make_mesh
from block_recurrent.training.evaluator import to_device
from block_recurrent.training.loop import train
from block_recurrent.training.metric_writer import read_metrics
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.step import SegmentBatch, StepMetrics, TrainState, init_train_state, train_step
from experiments.benchmarks.benchmark import Result, judge, medians

STEPS = 60  # of a run
LOG_EVERY = 10
ROUNDS = 3  # runs, and as often the bare step
LAYERS = 12  # as in the paper, for compiling

Step = Callable[[TrainState, SegmentBatch], tuple[TrainState, StepMetrics]]


def quickstart() -> RunConfig:
    gin_files.parse(["gin/runs/quickstart.gin"], [])
    return gin_files.configured_run()


def step_of(run: RunConfig) -> Step:
    optimizer = make_optimizer(run.optimizer, run.train.num_steps)
    return functools.partial(train_step, run.model, optimizer)


def begin(run: RunConfig) -> tuple[TrainState, SegmentBatch]:
    """The state before the first step, and that step's batch."""
    optimizer = make_optimizer(run.optimizer, run.train.num_steps)
    state = jax.jit(
        lambda: init_train_state(run.model, optimizer, seed=run.train.seed, batch_size=run.data.batch_size)
    )()
    batch = open_training(run.data, vocab_size=run.model.vocab_size).reader().read(0)
    return state, to_device(make_mesh(run.mesh), batch, run.data.batch_size)


def repeated(step: Step, state: TrainState, batch: SegmentBatch, times: int) -> Callable[[], object]:
    """Takes the step again and again, each on what the one before left."""
    compiled = jax.jit(step, donate_argnums=0)

    def take() -> object:
        nonlocal state
        for _ in range(times):
            state, metrics = compiled(state, batch)
            jax.block_until_ready(metrics)
        return state

    return take


def bench_dispatch(run: RunConfig) -> Iterator[Result]:
    """A step of the same arguments and results that computes nothing is what every call costs."""
    step = step_of(run)
    told = jax.eval_shape(step, *begin(run))[1]

    def empty(state: TrainState, batch: SegmentBatch) -> tuple[TrainState, StepMetrics]:
        return state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), told)

    seconds = medians({"step": repeated(step, *begin(run), 10), "empty": repeated(empty, *begin(run), 10)})
    leaves = len(jax.tree.leaves(begin(run)))
    print(f"     step {seconds['step'] * 100:.1f} ms, calling it {seconds['empty'] * 100:.2f} ms, {leaves} leaves")
    yield Result("calling the compiled step", 100 * seconds["empty"] / seconds["step"], "% of it", 5, at_least=False)


def bench_loop(run: RunConfig) -> Iterator[Result]:
    """Runs and bare steps in turns; a run's first line, which compiles, does not count.

    The turns are long, so that other work on the machine may meet one kind alone: the quickest of each are compared.
    """
    settings = dataclasses.replace(run.train, num_steps=STEPS, log_every=LOG_EVERY, eval_steps=1)
    bare = repeated(step_of(run), *begin(run), LOG_EVERY)
    bare()
    lines, bare_seconds = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            workdir = epath.Path(folder) / "run"
            train(dataclasses.replace(run, train=settings), workdir, Console(quiet=True))
            lines += [line for line in read_metrics(workdir) if line["group"] == "speed"][1:]
        for _ in range(STEPS // LOG_EVERY):
            start = time.perf_counter()
            bare()
            bare_seconds.append((time.perf_counter() - start) / LOG_EVERY)
    of_loop, of_step = min(line["seconds_per_step"] for line in lines), min(bare_seconds)
    print(f"     bare step {of_step * 1e3:.1f} ms, in the loop {of_loop * 1e3:.1f} ms; {len(lines)} lines", flush=True)
    yield Result("what the loop adds to the bare step", 100 * (of_loop / of_step - 1), "%", 5, at_least=False)
    waited = statistics.fmean(line["data_wait"] for line in lines)
    yield Result("waiting for data, mean of all lines", 100 * waited, "% of the time", 1, at_least=False)


def bench_compile(run: RunConfig) -> Iterator[Result]:
    """Twelve layers, one of them recurrent, as in the paper. On CPU a scan costs time; it is meant for TPU."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _, scanned in itertools.product(range(ROUNDS), seconds):
        model = dataclasses.replace(
            run.model, num_layers=LAYERS, recurrent_layers=(LAYERS - 3,), scan_layers=scanned, remat="none"
        )
        longer = dataclasses.replace(run, model=model)
        lowered = jax.jit(step_of(longer), donate_argnums=0).lower(*begin(longer))
        jax.clear_caches()
        start = time.perf_counter()
        lowered.compile()
        seconds[scanned].append(time.perf_counter() - start)
    plain, scanned = (statistics.median(values) for values in seconds.values())
    print(f"     {LAYERS} layers compile in {plain:.1f} s, scanned in {scanned:.1f} s", flush=True)
    yield Result("compiling scanned layers against one by one", scanned / plain, "times", 2, at_least=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures training on the quickstart's model.")
    parser.add_argument("--output", default="experiments/benchmarks/results/train.json")
    arguments = parser.parse_args()
    run = quickstart()
    results = itertools.chain.from_iterable(bench(run) for bench in (bench_dispatch, bench_loop, bench_compile))
    judge(results, Path(arguments.output), jax=jax.__version__, device=jax.devices()[0].device_kind)


if __name__ == "__main__":
    main()
