"""Measures the step time of every row of Table 1 at full size on an accelerator: `make bench-table`.

A row takes turns with Slide:13L, to which the paper's column relates all rows. A step has the tokens of 8 rows of 4096,
a quarter of the paper's, all on one device; the execution fields are those of `gin/hardware/gpu.gin`. The last entries
are Rec:fixed:skip with other execution fields, which change time and memory but no result.

Every measurement is saved at once, and the next call measures what is missing: delete the file to measure again. A file
of another device or version of jax is refused. About two minutes for each row on an H100, most of them to compile.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax

from block_recurrent.cli import gin_files
from block_recurrent.config import RunConfig
from block_recurrent.files import local_path, write_whole
from block_recurrent.model.flops import training_flops
from block_recurrent.paper.formats import paper_text
from block_recurrent.paper.tables import TABLE_1
from experiments.benchmarks.random_tokens import compile_step, repeat

OUTPUT = Path("experiments/benchmarks/results/table.json")
BASELINE, RECURRENT = "Slide:13L", "Rec:fixed:skip"
SHARE = 4  # of the paper's batch: one row in four
STEPS_PER_TURN = 4
SHARED = ("gin/data/pg19_tokens.gin", "gin/recipes/cosine.gin", "gin/hardware/gpu.gin")
FILES = {row.name: row.gin_file for row in TABLE_1.rows if row.gin_file}
# Execution fields other than those of `gin/hardware/gpu.gin`.
VARIANTS = (
    "ModelConfig.loss_chunk=None",
    "ModelConfig.scan_layers=False",
    "ModelConfig.remat='full'",
    "ModelConfig.remat='none'",
)
# Arguments of `run_of`, by the name of the entry.
JOBS = {name: (name,) for name in FILES} | {f"{RECURRENT}, {text}": (RECURRENT, text) for text in VARIANTS}


def run_of(name: str, *params: str) -> RunConfig:
    """Returns the run of a row, with a quarter of its batch."""
    gin_files.parse([FILES[name], *SHARED], list(params))
    run = gin_files.configured_run()
    return dataclasses.replace(run, data=dataclasses.replace(run.data, batch_size=run.data.batch_size // SHARE))


class Steps:
    """Steps of a run on random tokens.

    Attributes:
        facts: seconds to compile, bytes of the program on the device, and floating-point operations of a step, as
            `model.flops` counts them.
    """

    def __init__(self, run: RunConfig):
        start = time.perf_counter()
        step = compile_step(run)
        seconds = time.perf_counter() - start
        memory = step.memory_analysis()
        tokens = run.data.batch_size * run.data.segment_length
        self.facts = {
            "compile_seconds": round(seconds, 1),
            "bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
            "flops": tokens * training_flops(run.model, run.data.segment_length),
        }
        self._take = repeat(step, run, STEPS_PER_TURN)

    def seconds(self) -> float:
        """Returns the mean seconds of the steps of a turn."""
        start = time.perf_counter()
        jax.block_until_ready(self._take())
        return (time.perf_counter() - start) / STEPS_PER_TURN


def measure(steps: Steps, baseline: Steps, rounds: int) -> dict[str, Any]:
    """Measures a run and the baseline in turns; the first turn of each does not count."""
    pairs = [(steps.seconds(), baseline.seconds()) for _ in range(rounds + 1)][1:]
    seconds = statistics.median(ours for ours, _ in pairs)
    return steps.facts | {
        "rounds": rounds,
        "seconds": round(seconds, 5),
        "relative": round(statistics.median(ours / theirs for ours, theirs in pairs), 3),
        "teraflops": round(steps.facts["flops"] / seconds / 1e12, 1),
    }


def line(name: str, found: dict[str, Any]) -> str:
    """Returns a line of the output."""
    row = next((row for row in TABLE_1.rows if row.name == name), None)
    paper = "" if row is None else f", in the paper {paper_text(row.cells['step_time'])}"
    return (
        f"{name:44} {found['seconds'] * 1e3:7.1f} ms per step, {found['relative']:.2f} of {BASELINE}{paper}; "
        f"{found['teraflops']:.0f} TFLOP/s, {found['bytes'] / 1e9:.1f} GB, compiled in {found['compile_seconds']:.0f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=local_path, default=OUTPUT, help="[default: %(default)s]")
    parser.add_argument("--platform", default="cuda", help="platform of jax [default: %(default)s]")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each row [default: %(default)s]")
    parser.add_argument("--row", action="append", choices=JOBS, help="measure this row alone; may be repeated")
    arguments = parser.parse_args()
    try:
        device = jax.devices(arguments.platform)[0]
    except RuntimeError:
        print(f"jax finds no device of --platform {arguments.platform}; see docs/gpu.md", file=sys.stderr)
        return 2
    measured_on = {"device": device.device_kind, "jax": jax.__version__}
    results: dict[str, Any] = measured_on | {"rows": {}}
    if arguments.output.exists():
        results = json.loads(arguments.output.read_text())
        if found := {key: results[key] for key in measured_on if results[key] != measured_on[key]}:
            expected = {key: measured_on[key] for key in found}
            print(f"{arguments.output}: measured with {found}, not {expected}; pass another --output", file=sys.stderr)
            return 2
    baseline = None
    for name in arguments.row or JOBS:
        if name not in results["rows"]:
            baseline = baseline or Steps(run_of(BASELINE))
            steps = baseline if name == BASELINE else Steps(run_of(*JOBS[name]))
            results["rows"][name] = measure(steps, baseline, arguments.rounds)
            write_whole(arguments.output, json.dumps(results, indent=1) + "\n")
        print(line(name, results["rows"][name]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
