"""Measures what an external memory costs: step time and memory against Rec:fixed:skip, in turns (`make bench-memory`).

The size is `small`. As in the paper's table, all models read the same number of tokens in a step: the Memorizing
Transformer in segments of one window, Rec:fixed:skip in segments of several. Takes about 10 minutes on 2 cores.
"""

import argparse
import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax

from block_recurrent.files import write_whole
from experiments.benchmarks.configurations import SIZES, Configuration, slide
from experiments.benchmarks.speed import job
from experiments.benchmarks.turns import COMMAND_ENVIRONMENT, Measured, Worker, race, times_as_fast

OUTPUT = Path("experiments/benchmarks/results/memory.json")
RECURRENT = "Rec:fixed:skip"
NEIGHBORS = 128  # as in the official code
# Slots and retrieval of each model.
MEMORIES = ((8_192, "bucketed"), (32_768, "bucketed"), (8_192, "exact"), (8_192, "approximate"))


def memorizing(size: int, retrieval: str) -> Configuration:
    """Returns the Memorizing Transformer of size `small` with a memory of `size` tokens in its third layer."""
    small = SIZES["small"]
    window = small.model["window_length"]
    model = slide(small, more_layers=0).replace(
        memory_layers=[2], memory_size=size, memory_neighbors=NEIGHBORS, memory_retrieval=retrieval
    )
    rows = small.batch_size * small.segment_length // window
    return dataclasses.replace(model, batch_size=rows, segment_length=window)


def compare(size: int, retrieval: str, rounds: int) -> dict[str, Any]:
    """Measures the train steps of both models in turns."""
    models = {RECURRENT: SIZES["small"], "memory": memorizing(size, retrieval)}
    workers = [
        Worker(name, "step.py", job(model, "train_step"), environment=COMMAND_ENVIRONMENT)
        for name, model in models.items()
    ]
    measured = race(workers, rounds)
    recurrent, memory = measured[RECURRENT], measured["memory"]
    result = {
        "slots": size,
        "retrieval": retrieval,
        "neighbors": NEIGHBORS,
        "step_time": round(1 / times_as_fast(memory, recurrent), 3),
        "peak_bytes": round(memory.facts["peak_bytes"] / recurrent.facts["peak_bytes"], 3),
        "models": {name: summary(found) for name, found in measured.items()},
    }
    print(
        f"{size:6,} tokens, {retrieval:11}: {result['step_time']:.2f} times the step time of {RECURRENT} "
        f"(spreads {recurrent.spread:.0%} and {memory.spread:.0%}), {result['peak_bytes']:.2f} times the memory "
        f"({memory.facts['peak_bytes'] / 1e6:,.0f} and {recurrent.facts['peak_bytes'] / 1e6:,.0f} MB)",
        flush=True,
    )
    return result


def summary(measured: Measured) -> dict[str, Any]:
    """Returns the measurements of one model as JSON values."""
    return {
        "tokens_per_second": round(measured.tokens_per_second),
        "spread": round(measured.spread, 3),
        "peak_bytes": measured.facts["peak_bytes"],
        "compile_seconds": round(measured.facts["compile_seconds"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures what an external memory costs against Rec:fixed:skip.")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "jax": jax.__version__}
    results: dict[str, Any] = {**machine, "rounds": arguments.rounds, "comparisons": []}
    for size, retrieval in MEMORIES:
        results["comparisons"].append(compare(size, retrieval, arguments.rounds))
        write_whole(arguments.output, json.dumps(results, indent=1) + "\n")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
