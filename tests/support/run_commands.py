"""Commands in several processes that join once: `python -m tests.support.run_commands FILE HOST:PORT COUNT INDEX`.

The file has a JSON list of command lines. With END_PASS_AFTER=N in the environment a scoring pass that saves every step
ends with an error after N steps; with FIRST_STEP=N a pass must resume at step N.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from block_recurrent.cli.main import main
from block_recurrent.errors import InputError
from block_recurrent.evaluation import passes
from block_recurrent.parallel import processes

# XLA's connection message. Its threads write it in pieces, so the messages of two threads may mix.
_GLOO = re.compile(
    r"\[Gloo\] Rank |\d* is connected to \d*|\d* peer ranks\. |Expected number of connected peer ranks is : \d*"
)


def own_lines(output: str) -> list[str]:
    """Returns the lines of a process's output that are not XLA's messages about connections."""
    return [line for line in _GLOO.sub("", output).splitlines() if line.strip(" 0123456789")]


def run(path: str, coordinator: str, count: str, index: str) -> None:
    together = ["--coordinator", coordinator, "--num-processes", count, "--process-id", index]
    join, ready, shown = processes.initialise, False, sys.stdout

    def join_once(*arguments: Any) -> None:
        nonlocal ready
        if not ready:
            join(*arguments)
        ready = True

    processes.initialise = join_once
    watch_passes(int(os.environ.get("END_PASS_AFTER", "0")), int(os.environ.get("FIRST_STEP", "0")))
    for command in json.loads(Path(path).read_text()):
        sys.argv, sys.stdout = ["block_recurrent", *command, *together], shown
        print(f"$ {command[0]}", file=shown, flush=True)
        try:
            main()
        except SystemExit as ended:
            print(f"exit {ended.code}", file=shown, flush=True)


def watch_passes(end_after: int, first: int) -> None:
    if not end_after and not first:
        return
    score = passes.score

    def watched(*arguments: Any) -> Iterator[Any]:
        assert arguments[-1] == first
        for number, scored in enumerate(score(*arguments)):
            if number == end_after and end_after:
                raise InputError("END_PASS_AFTER")
            yield scored

    passes.score = watched
    passes.ResumablePasses.__init__.__defaults__ = (0.0,)  # seconds between saves


def run_in_processes(
    folder: Path, commands: list[list[str]], *, count: int, devices: int, ends: str = "exit 0"
) -> list[list[str]]:
    """Returns for each process the output of its commands; `ends` is what it must contain for each one."""
    with socket.socket() as free:
        free.bind(("", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    (folder / "commands.json").write_text(json.dumps(commands))
    # As in tests/conftest.py.
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}")
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.run_commands"),
                *(str(folder / "commands.json"), coordinator, str(count), str(index)),
            ],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]
    outputs = [process.communicate(timeout=170)[0] for process in started]
    shown = "\n\n".join(output[-6000:] for output in outputs)
    assert [process.returncode for process in started] == [0] * count, shown
    split = [output.split("\n$ ") for output in outputs]
    assert [len(parts) for parts in split] == [len(commands)] * count, shown
    assert all(ends in part for parts in split for part in parts), shown
    return split


if __name__ == "__main__":
    run(*sys.argv[1:])
