"""Measures the speed of every step on this machine: `make bench`.

For three sizes of Rec:fixed:skip, and for Slide with one layer more: a train step, an evaluation step, prefill and
decoding; for every row of Table 1 in small, a train step. Each in a process of its own, in turns. Writes tokens per
second with their spread, seconds to compile, memory, and the rate of floating-point operations (as `model.flops`
counts them) as a share of the rate of a large matrix product. Takes 20 to 35 minutes on 2 cores.
"""

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

from block_recurrent import ModelConfig
from block_recurrent.files import write_whole
from block_recurrent.model.flops import TRAINING_FACTOR, forward_flops
from experiments.benchmarks.configurations import SIZES, Configuration, slide, table1_in_small
from experiments.benchmarks.turns import COMMAND_ENVIRONMENT, Measured, Worker, race

OUTPUT = Path("experiments/benchmarks/results/speed.json")
ROUNDS = {"medium": 5, "small": 5, "large": 2}
# XLA can hand products to several libraries; the reference is the fastest.
PRODUCTS = {
    "product": "",
    "product, XNNPACK": "--xla_cpu_experimental_xnn_fusion_type=dot",
    "product, YNN": "--xla_cpu_experimental_ynn_fusion_type=individual_dot",
}
TASKS = ("train_step", "eval_step", "prefill", "decode")
DECODED = 256  # tokens of a row in a turn


def job(configuration: Configuration, task: str) -> dict[str, Any]:
    """Returns a worker's job; decoding samples fewer tokens than a segment has."""
    described = configuration.job(task)
    return described | {"segment_length": DECODED} if task == "decode" else described


def product_worker(name: str) -> Worker:
    """Starts a worker that computes the product with one of the libraries."""
    return Worker(name, "product.py", {}, environment=COMMAND_ENVIRONMENT | {"XLA_FLAGS": PRODUCTS[name]})


def product_rate(measured: Measured) -> float:
    """Returns the FLOP/s of a product."""
    return measured.facts["flops"] / statistics.median(measured.seconds)


def fastest_product() -> str:
    """Returns the name of the fastest library."""
    measured = race(map(product_worker, PRODUCTS), 5)
    return max(PRODUCTS, key=lambda name: product_rate(measured[name]))


def flops_per_token(configuration: Configuration, task: str) -> float:
    """Returns the floating-point operations of a token in this task."""
    config = ModelConfig(**configuration.model)
    forward = sum(forward_flops(config, configuration.segment_length).values())
    return forward * (TRAINING_FACTOR if task == "train_step" else 1)


def summary(configuration: Configuration, task: str, measured: Measured, product: float) -> dict[str, Any]:
    """Returns the results of one worker as JSON values."""
    rate = measured.tokens_per_second * flops_per_token(configuration, task)
    return {
        "tokens_per_second": round(measured.tokens_per_second),
        "spread": round(measured.spread, 3),
        "share_of_product": round(rate / product, 3),
        "seconds": measured.seconds,
        **{key: value for key, value in measured.facts.items() if key.endswith(("seconds", "bytes"))},
    }


def measure(models: dict[str, Configuration], task: str, rounds: int, library: str) -> dict[str, Any]:
    """Measures one task of several models, and the product, in turns; prints a line for each model."""
    workers = [
        Worker(name, "step.py", job(model, task), environment=COMMAND_ENVIRONMENT) for name, model in models.items()
    ]
    measured = race([product_worker(library), *workers], rounds)
    product = product_rate(measured[library])
    results = {name: summary(model, task, measured[name], product) for name, model in models.items()}
    for name, result in results.items():
        memory = result.get("peak_bytes", result["peak_resident_bytes"])
        print(
            f"{task:10} {name:28} {result['tokens_per_second']:8,} tokens/s  +- {result['spread']:.0%}  "
            f"{result['share_of_product']:.0%} of {product / 1e9:.0f} GFLOP/s  "
            f"compiled in {result['compile_seconds']:.1f} s  {memory / 1e6:,.0f} MB",
            flush=True,
        )
    return {"product_flops_per_second": product, "models": results}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the speed of every step on this machine.")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output = parser.parse_args().output
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    library = fastest_product()
    results: dict[str, Any] = {"machine": machine, "product": library, "measurements": {}}
    for size, configuration in SIZES.items():
        models = {f"Rec:fixed:skip, {size}": configuration, f"Slide, one layer more, {size}": slide(configuration)}
        for task in TASKS:
            results["measurements"][f"{task}, {size}"] = measure(models, task, ROUNDS[size], library)
            write_whole(output, json.dumps(results, indent=1) + "\n")
    rows = list(table1_in_small().items())
    for first in range(0, len(rows), 4):
        group = dict(rows[first : first + 4])
        results["measurements"][f"Table 1 in small, from {rows[first][0]}"] = measure(group, "train_step", 3, library)
    write_whole(output, json.dumps(results, indent=1) + "\n")
    print(f"written to {output}")


if __name__ == "__main__":
    main()
