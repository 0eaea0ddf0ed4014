"""Results of benchmarks: measurements that are printed, written and compared with their bounds."""

import dataclasses
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


def judge(results: Iterable[Result], output: Path, **facts: Any) -> None:
    """Prints results as they arrive, writes them with facts about the run, and exits with 1 if a bound is missed."""
    measured = []
    for result in results:
        print(result, flush=True)
        measured.append(result)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    record = {**facts, **machine, "results": [dataclasses.asdict(r) | {"met": r.met} for r in measured]}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {output}")
    sys.exit(not all(result.met for result in measured))
