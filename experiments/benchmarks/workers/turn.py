"""The worker's side of taking turns; imports only the standard library, so that every environment can run it."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TURN_SECONDS = 1.0


def job() -> dict[str, Any]:
    """Returns the job of this process, the JSON object on its command line."""
    return json.loads(sys.argv[1])


def take_turns(run: Callable[[], object], **facts: Any) -> None:
    """Answers every line of the standard input with the mean seconds of the runs of one turn.

    Each turn begins with runs that do not count. Training and evaluation take thousands of steps in a row, but while
    other processes have their turns, memory that this one has freed goes back to the system, and it takes up to five
    steps until it is as fast as before.

    Args:
        run: the task, already compiled; it returns when its results are there.
        facts: about the task, for the first line of the output.
    """
    run()
    answer(facts | {"peak_resident_bytes": _peak_resident_bytes()})
    for _ in sys.stdin:
        _mean_seconds(run)
        answer({"seconds": _mean_seconds(run)})


def _mean_seconds(run: Callable[[], object]) -> float:
    """Returns the mean seconds of two runs, or of as many as fit into `TURN_SECONDS`."""
    start, runs = time.perf_counter(), 0
    while runs < 2 or time.perf_counter() - start < TURN_SECONDS:
        run()
        runs += 1
    return (time.perf_counter() - start) / runs


def answer(values: dict[str, Any]) -> None:
    """Sends facts or a result to the program that started this one."""
    print(json.dumps(values), flush=True)


def _peak_resident_bytes() -> int:
    """Returns the largest resident memory that this process had so far; Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
