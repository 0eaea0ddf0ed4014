"""Commands in several processes that join once: `python -m tests.support.run_commands FILE HOST:PORT COUNT INDEX`.

The file has a JSON list of command lines.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from block_recurrent.cli.main import main
from block_recurrent.parallel import processes


def run(path: str, coordinator: str, count: str, index: str) -> None:
    together = ["--coordinator", coordinator, "--num-processes", count, "--process-id", index]
    join, joined, shown = processes.initialise, False, sys.stdout

    def join_once(*arguments: Any) -> None:
        nonlocal joined
        if not joined:
            join(*arguments)
        joined = True

    processes.initialise = join_once
    for command in json.loads(Path(path).read_text()):
        sys.argv, sys.stdout = ["block_recurrent", *command, *together], shown
        print(f"$ {command[0]}", file=shown, flush=True)
        try:
            main()
        except SystemExit as ended:
            print(f"exit {ended.code}", file=shown, flush=True)


def run_in_processes(folder: Path, commands: list[list[str]], *, count: int, devices: int) -> list[list[str]]:
    """Returns for each process the output of its commands."""
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
    ends = "\n\n".join(output[-6000:] for output in outputs)
    assert [process.returncode for process in started] == [0] * count, ends
    split = [output.split("\n$ ")[0:] for output in outputs]
    assert [len(parts) for parts in split] == [len(commands)] * count, ends
    assert all(part.rstrip().endswith("exit 0") for parts in split for part in parts), ends
    return split


if __name__ == "__main__":
    run(*sys.argv[1:])
