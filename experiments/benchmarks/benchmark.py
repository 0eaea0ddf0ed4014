"""Results of benchmarks: measurements that are printed, written and compared with their bounds."""

import dataclasses
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from block_recurrent.files import write_whole


@dataclasses.dataclass(frozen=True)
class Result:
    """One measurement against its bound."""

    what: str
    value: float
    unit: str
    bound: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{'ok  ' if self.met else 'MISS'} {self.what}: {self.value:,.4g} {self.unit} ({sign} {self.bound:g})"


def medians(tasks: dict[Any, Callable[[], object]], *, rounds: int = 9) -> dict[Any, float]:
    """Returns the median seconds of each task; the tasks alternate, so that other work on the machine affects all."""
    seconds: dict[Any, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            jax.block_until_ready(task())
            if turn:  # the first turn compiles
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def judge(results: Iterable[Result], output: Path, *, update: bool = False, **facts: Any) -> None:
    """Prints and writes results as they arrive, with facts about the run, and exits with 1 if a bound is missed.

    Args:
        results: the measurements.
        output: JSON file to write.
        update: keeps the results of other measurements that the file holds already.
        **facts: written as they are.
    """
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    written: dict[str, dict[str, Any]] = {}
    if update and output.exists():
        written = {result["what"]: result for result in json.loads(output.read_text())["results"]}
    output.parent.mkdir(parents=True, exist_ok=True)
    met = True
    for result in results:
        print(result, flush=True)
        met &= result.met
        today = datetime.date.today().isoformat()
        written[result.what] = dataclasses.asdict(result) | {"met": result.met, "measured": today}
        record = {**facts, **machine, "results": list(written.values())}
        write_whole(output, json.dumps(record, indent=1) + "\n")
    print(f"written to {output}")
    sys.exit(not met)
