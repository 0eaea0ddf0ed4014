"""Processes that take turns, so that other work on the machine affects all of them alike."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

WORKERS = Path(__file__).parent / "workers"
CHECKOUT = Path(__file__).parents[2]
# What `python -m block_recurrent train` sets for itself.
COMMAND_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


class Worker:
    """A process that repeats one task, one turn at a time.

    Args:
        name: for messages and results.
        program: file in `workers/`.
        job: its command line, as JSON.
        python: interpreter of its environment.
        checkout: folder with the `block_recurrent` that it imports.
        environment: variables to set.
    """

    def __init__(
        self,
        name: str,
        program: str,
        job: dict[str, Any],
        *,
        python: str = sys.executable,
        checkout: Path = CHECKOUT,
        environment: dict[str, str] | None = None,
    ):
        self.name = name
        self.answers: list[dict[str, Any]] = []
        inherited = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "GLIBC_TUNABLES")}
        settings = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(checkout), "JAX_ENABLE_COMPILATION_CACHE": "false"}
        self._process = subprocess.Popen(
            [python, str(WORKERS / program), json.dumps(job)],
            cwd="/",
            env=inherited | settings | (environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self._answer()
        self.turn()
        self.answers.clear()  # the first turn still warms up

    def turn(self) -> None:
        """Lets the process run its task once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.answers.append(self._answer())

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: the worker ended with {self._process.wait()}; its message is above")
        return json.loads(line)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Results of one worker.

    Attributes:
        turns: the worker's answers: `seconds`, and what else the program measures.
        facts: from the worker: tokens of a turn, seconds to compile, memory, versions.
    """

    turns: list[dict[str, Any]]
    facts: dict[str, Any]

    @property
    def seconds(self) -> list[float]:
        return [turn["seconds"] for turn in self.turns]

    @property
    def tokens_per_second(self) -> float:
        return self.facts["tokens"] / statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half of the distance between the quartiles, as a share of the median."""
        low, middle, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / 2 / middle


def race(workers: Iterable[Worker], rounds: int) -> dict[str, Measured]:
    """Lets the workers run in turns, stops them, and returns what they measured, by name."""
    running = list(workers)
    try:
        for _ in range(rounds):
            for worker in running:
                worker.turn()
    finally:
        for worker in running:
            worker.stop()
    return {worker.name: Measured(worker.answers, worker.facts) for worker in running}


def times_as_fast(measured: Measured, other: Measured) -> float:
    """Returns the median over the rounds of the ratio of tokens per second."""
    rates = zip(measured.seconds, other.seconds, strict=True)
    tokens = measured.facts["tokens"] / other.facts["tokens"]
    return tokens * statistics.median(theirs / ours for ours, theirs in rates)
