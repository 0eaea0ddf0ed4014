"""Measures compile time and host memory of every row of Table 1 for a v4-32: `make bench-compile`.

Each train step is compiled `--rounds` times, each time in a separate process. The rows take turns, so that other work
on the machine affects all of them. The time includes tracing; the memory is the peak of the process. Every measurement
is saved at once, and the next call measures what is missing: delete the file to measure again. Exits with 1 if a bound
is missed. One round takes 20 to 35 minutes on 2 cores; `--row` measures some rows only.
"""

import argparse
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from block_recurrent.aot.compile_report import Entry, read_result
from block_recurrent.files import write_whole
from block_recurrent.progress import Progress
from experiments.benchmarks.benchmark import Result, judge

SLICE = "v4:2x2x4"
SECONDS = 180
GIGABYTES = 5

Runs = dict[str, list[dict[str, float]]]


def compile_once(entry: Entry) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-m", "block_recurrent", *entry.command, "--json", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        one = read_result(path)
    return {"seconds": one.lower_seconds + one.compile_seconds, "gigabytes": one.host_bytes / 1e9}


def complete(runs: Runs, rows: Sequence[str], rounds: int, output: Path) -> None:
    """Compiles until each of the rows has been measured in each round."""
    output.parent.mkdir(parents=True, exist_ok=True)
    done = sum(len(runs[row]) for row in rows)
    with Progress("compiling", max(done, rounds * len(rows)), done=done, console=Console()) as progress:
        for turn in range(rounds):
            for row in (row for row in rows if len(runs[row]) == turn):
                one = compile_once(Entry(gin_file=f"table1/{row}.gin", topology=SLICE, step="train"))
                runs[row].append(one)
                write_whole(output, json.dumps({"runs": runs}, indent=1) + "\n")
                done += 1
                progress.update(done, f"{row}: {one['seconds']:.0f} s, {one['gigabytes']:.2f} GB")


def results(runs: Runs) -> Iterator[Result]:
    for row, measured in runs.items():
        if not measured:
            continue
        seconds = statistics.median(one["seconds"] for one in measured)
        yield Result(f"{row}, median of {len(measured)}", seconds, "s", SECONDS, at_least=False)
        memory = max(one["gigabytes"] for one in measured)
        yield Result(f"{row}, most of {len(measured)}", memory, "GB", GIGABYTES, at_least=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures compile time and memory of the rows of Table 1 for a v4-32.")
    parser.add_argument(
        "--output", default="experiments/benchmarks/results/compile.json", help="[default: %(default)s]"
    )
    parser.add_argument("--rounds", type=int, default=3, help="[default: %(default)s]")
    names = [path.stem for path in sorted(Path("gin/table1").glob("*.gin"))]
    parser.add_argument(
        "--row", action="append", choices=names, metavar="ROW", help="measure this row; repeatable [default: all rows]"
    )
    arguments = parser.parse_args()
    output = Path(arguments.output)
    finished: Runs = json.loads(output.read_text())["runs"] if output.exists() else {}
    runs = {row: finished.get(row, []) for row in names}
    complete(runs, sorted(set(arguments.row or names)), arguments.rounds, output)
    versions: dict[str, Any] = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    judge(results(runs), output, topology=SLICE, runs=runs, **versions)


if __name__ == "__main__":
    main()
