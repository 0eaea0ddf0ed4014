"""Measures how long a user waits: `make bench-start`.

The time of `--help`, and the time from the command line of the quickstart's training to the end of its first step,
with an empty compilation cache and with a filled one; medians. Exits with 1 if a bound is missed. Takes 3 minutes on
2 cores; needs the store of the quickstart (`make quickstart`).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from etils import epath

from block_recurrent.training.metric_writer import read_metrics
from experiments.benchmarks.benchmark import Result, judge

COMMAND = [sys.executable, "-m", "block_recurrent"]
ROUNDS = 5
ALLOWED_SECONDS = 300


def seconds_of_help() -> float:
    start = time.perf_counter()
    subprocess.run([*COMMAND, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def seconds_to_first_step(workdir: Path, cache: Path) -> float:
    """Starts training with a cache folder, and kills it once the metrics of the first step are written."""
    options = ["--gin-file", "gin/runs/quickstart.gin", "--workdir", str(workdir)]
    options += ["--gin-param", "TrainConfig.log_every=1"]
    inherited = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}  # jax sets it
    start = time.perf_counter()
    with subprocess.Popen(
        [*COMMAND, "train", *options],
        env={**inherited, "XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            while time.perf_counter() - start < ALLOWED_SECONDS and process.poll() is None:
                if any(line["group"] == "train" for line in read_metrics(epath.Path(workdir))):
                    return time.perf_counter() - start
                time.sleep(0.02)
        finally:
            process.kill()
    sys.exit(f"{workdir}: no first step within {ALLOWED_SECONDS} s; exit code {process.returncode}")


def measure() -> Iterator[Result]:
    """Measures each wait several times."""
    yield Result("--help", statistics.median(seconds_of_help() for _ in range(ROUNDS)), "s", 0.5, at_least=False)
    empty, filled = [], []
    for turn in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "cache"
            empty.append(seconds_to_first_step(Path(folder) / "first", cache))
            filled.append(seconds_to_first_step(Path(folder) / "second", cache))
        print(
            f"     turn {turn}: first step after {empty[-1]:.1f} s, with a filled cache {filled[-1]:.1f} s", flush=True
        )
    yield Result("first step, empty cache", statistics.median(empty), "s", 15, at_least=False)
    yield Result("first step, filled cache", statistics.median(filled), "s", 6, at_least=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures how long a user waits for the first step.")
    parser.add_argument("--output", default="experiments/benchmarks/results/start.json")
    arguments = parser.parse_args()
    judge(measure(), Path(arguments.output), jax=jax.__version__)


if __name__ == "__main__":
    main()
