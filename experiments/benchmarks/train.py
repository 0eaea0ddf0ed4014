"""Measures training on the quickstart's model against its bounds: `make bench-train`.

Measures the cost of calling the compiled step, the loop's addition to the step, the wait for data, and the time to
compile scanned layers. Writes the results to a JSON file and exits with 1 if a bound is missed. Takes about 4 minutes
on 2 cores.
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
ROUNDS = 3  # runs, alternating with bare steps
LAYERS = 12  # of the compiled model, as in the paper

Step = Callable[[TrainState, SegmentBatch], tuple[TrainState, StepMetrics]]


def quickstart() -> RunConfig:
    gin_files.parse(["gin/runs/quickstart.gin"], [])
    return gin_files.configured_run()


def step_of(run: RunConfig) -> Step:
    optimizer = make_optimizer(run.optimizer, run.train.num_steps)
    return functools.partial(train_step, run.model, optimizer)


def first_step(run: RunConfig) -> tuple[TrainState, SegmentBatch]:
    """Returns the state before the first step, and the batch of that step."""
    optimizer = make_optimizer(run.optimizer, run.train.num_steps)
    state = jax.jit(
        lambda: init_train_state(run.model, optimizer, seed=run.train.seed, batch_size=run.data.batch_size)
    )()
    batch = open_training(run.data, vocab_size=run.model.vocab_size).reader().read(0)
    return state, to_device(make_mesh(run.mesh), batch, run.data.batch_size)


def repeated(step: Step, state: TrainState, batch: SegmentBatch, times: int) -> Callable[[], object]:
    """Returns a function that takes a number of steps, each from the state of the one before."""
    compiled = jax.jit(step, donate_argnums=0)

    def take() -> object:
        nonlocal state
        for _ in range(times):
            state, metrics = compiled(state, batch)
            jax.block_until_ready(metrics)
        return state

    return take


def bench_dispatch(run: RunConfig) -> Iterator[Result]:
    """Measures a step with the same arguments and results that computes nothing: the cost of every call."""
    step = step_of(run)
    metrics = jax.eval_shape(step, *first_step(run))[1]

    def empty(state: TrainState, batch: SegmentBatch) -> tuple[TrainState, StepMetrics]:
        return state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)

    seconds = medians({"step": repeated(step, *first_step(run), 10), "empty": repeated(empty, *first_step(run), 10)})
    leaves = len(jax.tree.leaves(first_step(run)))
    print(f"     step {seconds['step'] * 100:.1f} ms, calling it {seconds['empty'] * 100:.2f} ms, {leaves} leaves")
    yield Result("calling the compiled step", 100 * seconds["empty"] / seconds["step"], "% of it", 5, at_least=False)


def bench_loop(run: RunConfig) -> Iterator[Result]:
    """Alternates runs and bare steps; a run's first line includes compilation and does not count.

    Other work on the machine may slow down only one of the two, so the fastest of each are compared.
    """
    settings = dataclasses.replace(run.train, num_steps=STEPS, log_every=LOG_EVERY, eval_steps=1)
    bare = repeated(step_of(run), *first_step(run), LOG_EVERY)
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
    loop_seconds, step_seconds = min(line["seconds_per_step"] for line in lines), min(bare_seconds)
    print(
        f"     bare step {step_seconds * 1e3:.1f} ms, in the loop {loop_seconds * 1e3:.1f} ms; {len(lines)} lines",
        flush=True,
    )
    yield Result("what the loop adds to the bare step", 100 * (loop_seconds / step_seconds - 1), "%", 5, at_least=False)
    waited = statistics.fmean(line["data_wait"] for line in lines)
    yield Result("waiting for data, mean of all lines", 100 * waited, "% of the time", 1, at_least=False)


def bench_compile(run: RunConfig) -> Iterator[Result]:
    """Compiles twelve layers, one of them recurrent, as in the paper. A scan is meant for TPU; on CPU it is slower."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _, scanned in itertools.product(range(ROUNDS), seconds):
        model = dataclasses.replace(
            run.model, num_layers=LAYERS, recurrent_layers=(LAYERS - 3,), scan_layers=scanned, remat="none"
        )
        longer = dataclasses.replace(run, model=model)
        lowered = jax.jit(step_of(longer), donate_argnums=0).lower(*first_step(longer))
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
