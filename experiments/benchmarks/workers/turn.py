"""The worker's side of taking turns; imports only the standard library, so that every environment can run it."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def job() -> dict[str, Any]:
    """Returns the job of this process, the JSON object on its command line."""
    return json.loads(sys.argv[1])


def take_turns(run: Callable[[], object], **facts: Any) -> None:
    """Answers every line of the standard input with the seconds that one run takes.

    Args:
        run: the task, already compiled; it returns when its results are there.
        facts: about the task, for the first line of the output.
    """
    run()
    _answer(facts | {"peak_resident_bytes": _peak_resident_bytes()})
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        _answer({"seconds": time.perf_counter() - start})


def _answer(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


def _peak_resident_bytes() -> int:
    """Returns the largest resident memory that this process had so far; Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
