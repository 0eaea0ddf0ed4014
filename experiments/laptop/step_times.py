"""Measures the step times of the laptop's rows in turns, so that other work on the machine affects all of them.

Writes experiments/laptop/step_times.json. About a minute on 2 cores; the machine should be idle.
"""

import argparse
import datetime
import json
import os
import platform
from pathlib import Path

import jax

from block_recurrent.cli import gin_files
from block_recurrent.config import RunConfig
from block_recurrent.files import local_path
from experiments.benchmarks.benchmark import medians
from experiments.benchmarks.random_tokens import compile_step, repeat
from experiments.laptop.table import LAPTOP, SLIDE

STEPS_PER_TURN = 3


def run_of(gin_file: str) -> RunConfig:
    gin_files.parse([gin_file], None)
    return gin_files.configured_run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=local_path, default=Path("experiments/laptop/step_times.json"), help="[default: %(default)s]"
    )
    parser.add_argument("--rounds", type=int, default=9, help="turns of each row [default: %(default)s]")
    arguments = parser.parse_args()
    rows = {row.name: row.gin_file for row in LAPTOP.rows if row.gin_file and row.ablation is None}
    runs = {name: run_of(gin_file) for name, gin_file in rows.items()}
    tasks = {name: repeat(compile_step(run), run, STEPS_PER_TURN) for name, run in runs.items()}
    seconds = {name: value / STEPS_PER_TURN for name, value in medians(tasks, rounds=arguments.rounds).items()}
    for name, value in seconds.items():
        print(f"{name:20} {value * 1e3:8.1f} ms per step, {value / seconds[SLIDE]:.3f} of {SLIDE}", flush=True)
    record = {
        "seconds_per_step": seconds,
        "method": f"median of {arguments.rounds} turns of {STEPS_PER_TURN} steps, the rows in turns, random tokens",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "jax": jax.__version__,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
