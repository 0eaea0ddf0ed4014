"""Checks a GPU: `make check-card` compares the model with the official code on it, and measures its speed.

Parity is checked with JAX_DEFAULT_MATMUL_PRECISION=highest: by default a GPU rounds the factors of float32 products to
TF32, whose errors are far above the limits. Speed is measured with both precisions. The exit code is 1 if a fixture is
over its limits. docs/gpu.md describes the output.
"""

import argparse
import dataclasses
import os
import subprocess
import sys

from experiments.benchmarks.configurations import SIZES, Configuration
from experiments.benchmarks.speed import flops_per_token, job
from experiments.benchmarks.turns import CHECKOUT, Measured, Worker, race

FIXTURES = sorted((CHECKOUT / "tests" / "fixtures").glob("*.npz"))
PRECISIONS = ("highest", "default")
# A size at which a GPU has work; the rows of Table 1 in the paper have four times the width of `large`.
CONFIGURATION = dataclasses.replace(SIZES["large"], batch_size=16, segment_length=2048)
TASKS = ("train_step", "eval_step", "prefill", "decode")
ROUNDS = 3
DEVICE = "import jax; d = jax.devices()[0]; print(f'{d.device_kind} ({d.platform}), jax {jax.__version__}')"


def environment(platform: str, precision: str) -> dict[str, str]:
    """Returns the variables of a process on the card; without preallocation, so that others may use it, too."""
    return {
        "JAX_PLATFORMS": platform,
        "JAX_DEFAULT_MATMUL_PRECISION": precision,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def run(platform: str, *command: str) -> int:
    """Runs a program of the package's Python on the card with full precision; returns its exit code."""
    settings = os.environ | environment(platform, "highest") | {"PYTHONPATH": str(CHECKOUT)}
    return subprocess.run([sys.executable, *command], env=settings, check=False).returncode


def measure(platform: str, precision: str, task: str, configuration: Configuration) -> Measured:
    """Measures one task in a process of its own."""
    worker = Worker(task, "step.py", job(configuration, task), environment=environment(platform, precision))
    return race([worker], ROUNDS)[task]


def line(precision: str, task: str, configuration: Configuration, measured: Measured) -> str:
    """Returns a line of the output."""
    rate = measured.tokens_per_second * flops_per_token(configuration, task)
    return (
        f"{task:10} precision {precision:8} {measured.tokens_per_second:12,.0f} tokens/s  {rate / 1e12:8.2f} TFLOP/s  "
        f"compiled in {measured.facts['compile_seconds']:.1f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", default="cuda", help="platform of jax [default: %(default)s]")
    parser.add_argument("--rows", type=int, default=CONFIGURATION.batch_size, help="rows [default: %(default)s]")
    parser.add_argument("--no-speed", action="store_true", help="only parity")
    arguments = parser.parse_args()
    if run(arguments.platform, "-c", DEVICE):
        print(f"jax finds no device of JAX_PLATFORMS={arguments.platform}; see docs/gpu.md", file=sys.stderr)
        return 2
    print("parity with the official code, JAX_DEFAULT_MATMUL_PRECISION=highest", flush=True)
    parity = run(arguments.platform, "-m", "block_recurrent", "check-parity", *map(str, FIXTURES))
    if arguments.no_speed:
        return parity
    configuration = dataclasses.replace(CONFIGURATION, batch_size=arguments.rows)
    print(f"speed of Rec:fixed:skip, {arguments.rows} rows of {configuration.segment_length} tokens", flush=True)
    for task in TASKS:
        for precision in PRECISIONS:
            print(line(precision, task, configuration, measure(arguments.platform, precision, task, configuration)))
    return parity


if __name__ == "__main__":
    sys.exit(main())
