"""Compares the speed with the PyTorch port and with version 0.1.0 of this project: `make bench-peers`.

`make` installs both: block-recurrent-transformer-pytorch into `.venv-port`, and commit c275696 with an environment of
its own into `.peers/c275696`. Every figure is the median over rounds in which the programs take turns. Today's program
runs as `python -m block_recurrent train` runs it, the others as they are. Takes 35 to 45 minutes on 2 cores;
`--only` measures parts, and a run that is stopped keeps what it has measured.
"""

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.benchmark import Result, judge
from experiments.benchmarks.configurations import SIZES, Configuration, slide
from experiments.benchmarks.speed import DECODED, TASKS, job
from experiments.benchmarks.turns import CHECKOUT, COMMAND_ENVIRONMENT, Measured, Worker, race, times_as_fast

ROUNDS = {"medium": 9, "small": 9, "large": 3}
OUTPUT = Path("experiments/benchmarks/results/peers.json")
OLD = CHECKOUT / ".peers" / "c275696"
PORT = CHECKOUT / ".venv-port"
# Bounds on the speed of today's program, as multiples of the other's.
AGAINST_OLD = {
    ("train_step", "medium"): 1.55,
    ("train_step", "small"): 1.4,
    ("train_step", "large"): 1.4,
    **{(task, size): 1.3 for task in ("eval_step", "prefill") for size in SIZES},
    **{("decode", size): 1.5 for size in SIZES},
}
AGAINST_PORT = 1.4
AGAINST_SLIDE = 0.95  # bound on the time of a step, as a multiple of that of Slide with one layer more
LONG = dataclasses.replace(SIZES["large"], batch_size=1, segment_length=8192)
DOCUMENTS = (4_096, 16_384, 65_536, 262_144)  # tokens, read in segments of 4,096
SEGMENTS = (1_024, 4_096, 32_768)


def today(name: str, configuration: Configuration, task: str) -> Worker:
    return Worker(name, "step.py", job(configuration, task), environment=COMMAND_ENVIRONMENT)


def old(name: str, configuration: Configuration, task: str) -> Worker:
    python = str(OLD / ".venv" / "bin" / "python")
    return Worker(name, "step.py", job(configuration, task), python=python, checkout=OLD)


def port(name: str, configuration: Configuration) -> Worker:
    python = str(PORT / "bin" / "python")
    return Worker(name, "port.py", configuration.job("train_step"), python=python)


def show(title: str, measured: dict[str, Measured]) -> None:
    print(f"     {title}")
    for name, result in measured.items():
        print(f"       {name:10} {result.tokens_per_second:8,.0f} tokens/s  +- {result.spread:.0%}", flush=True)


def bench_size(size: str, rounds: int, tasks: Sequence[str]) -> list[Result]:
    """Measures tasks at one size."""
    configuration, results = SIZES[size], []
    for task in tasks:
        workers = [today("today", configuration, task), old("c275696", configuration, task)]
        if task == "train_step":
            workers.append(today("slide", slide(configuration), task))
        if task == "train_step" and size == "medium":
            workers.append(port("port", configuration))
        measured = race(workers, rounds)
        show(f"{task}, {size}", measured)
        ratio, bound = times_as_fast(measured["today"], measured["c275696"]), AGAINST_OLD[task, size]
        results.append(Result(f"{task}, {size}, against c275696", ratio, "times as fast", bound, at_least=True))
        if "port" in measured:
            ratio = times_as_fast(measured["today"], measured["port"])
            results.append(
                Result(f"{task}, {size}, against the port", ratio, "times as fast", AGAINST_PORT, at_least=True)
            )
        if "slide" in measured:
            ratio = 1 / times_as_fast(measured["today"], measured["slide"])
            what = f"{task}, {size}, against Slide with one layer more"
            results.append(Result(what, ratio, "times its time", AGAINST_SLIDE, at_least=False))
    return results


def bench_pages() -> list[Result]:
    """Measures today's train steps with the commands' huge pages and without, two processes of each."""
    results = []
    for size in ("small", "medium"):
        described = job(SIZES[size], "train_step")
        workers = []
        for number in (1, 2):
            workers += [
                today(f"huge {number}", SIZES[size], "train_step"),
                Worker(f"plain {number}", "step.py", described),
            ]
        measured = race(workers, 12)
        show(f"train_step, {size}", measured)
        ratios = [times_as_fast(measured[f"huge {n}"], measured[f"plain {n}"]) for n in (1, 2)]
        results.append(Result(f"train_step, {size}, huge pages", min(ratios), "times as fast", 1, at_least=True))
    return results


def bench_memory() -> list[Result]:
    """Measures the memory and time of a train step on one row of 8,192 tokens."""
    measured = race([today("today", LONG, "train_step"), old("c275696", LONG, "train_step")], 2)
    show(f"train_step, large, one row of {LONG.segment_length:,}", measured)
    sizes = {name: result.facts["peak_bytes"] for name, result in measured.items()}
    print(f"     {sizes['today'] / 1e9:.2f} GB against {sizes['c275696'] / 1e9:.2f} GB", flush=True)
    seconds = 1 / times_as_fast(measured["today"], measured["c275696"])
    return [
        Result("memory, 8,192 tokens", sizes["today"] / sizes["c275696"], "of c275696's", 0.5, at_least=False),
        Result("time, 8,192 tokens", seconds, "of c275696's", 1.05, at_least=False),
    ]


def spread_of_costs(what: str, lengths: Sequence[int], per_token: np.ndarray, bound: float) -> Result:
    """Compares the time per token of several lengths, the slowest against the fastest.

    A cost is the median over the rounds of the time per token as a multiple of the round's mean, so that a slow round
    counts for all lengths alike.

    Args:
        what: for the result.
        lengths: in tokens.
        per_token: seconds, shape (lengths, rounds).
        bound: on the quotient.
    """
    relative = per_token / per_token.mean(axis=0)
    low, costs, high = np.quantile(relative, [0.25, 0.5, 0.75], axis=1)
    print(f"     {what}, as a multiple of the mean over the lengths")
    for length, cost, width in zip(lengths, costs, (high - low) / 2, strict=True):
        print(f"       {length:10,} {cost:.3f}  +- {width / cost:.1%}", flush=True)
    return Result(what, float(max(costs) / min(costs)), "times, slowest against fastest", bound, at_least=False)


def bench_documents() -> Result:
    """Measures the cost of a token in long documents, read by one process."""
    read = job(dataclasses.replace(SIZES["small"], batch_size=1, segment_length=4096), "eval_step")
    worker = Worker("documents", "documents.py", read | {"documents": DOCUMENTS}, environment=COMMAND_ENVIRONMENT)
    turns = race([worker], 7)["documents"].turns
    per_token = np.array([turn["per_token"] for turn in turns]).T
    return spread_of_costs("a token in documents of 4k to 256k", DOCUMENTS, per_token, 1.05)


def bench_segments() -> Result:
    """Measures the cost of a token in long segments."""
    row = dataclasses.replace(SIZES["small"], batch_size=1)
    sizes = [dataclasses.replace(row, segment_length=length) for length in SEGMENTS]
    measured = race([today(f"{size.segment_length:,}", size, "train_step") for size in sizes], 7).values()
    per_token = np.array([result.seconds for result in measured]) / np.array(SEGMENTS)[:, None]
    return spread_of_costs("a token in one segment of 1k to 32k", SEGMENTS, per_token, 1.15)


def bench_lengths() -> list[Result]:
    """Measures the cost of a token by length."""
    return [bench_documents(), bench_segments()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares the speed with the PyTorch port and with version 0.1.0.")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    further = {"memory": bench_memory, "lengths": bench_lengths, "pages": bench_pages}
    parser.add_argument(
        "--only", nargs="+", choices=[*SIZES, *further], help="Measure these parts, and keep the other results."
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="At each size, measure these.")
    arguments = parser.parse_args()
    parts: dict[str, Any] = {
        size: functools.partial(bench_size, size, rounds, arguments.tasks) for size, rounds in ROUNDS.items()
    }
    usual = [*parts, "memory", "lengths"]
    results = (result for part in arguments.only or usual for result in (parts | further)[part]())
    judge(
        results,
        arguments.output,
        update=bool(arguments.only),
        jax=jax.__version__,
        device=jax.devices()[0].device_kind,
        decoded=DECODED,
    )


if __name__ == "__main__":
    main()
