"""Trains in its own process: `python -m tests.support.run_training RUN.json WORKDIR [HOST:PORT COUNT INDEX]`."""

import dataclasses
import json
import sys
from pathlib import Path

from etils import epath
from rich.console import Console

from block_recurrent.config import RunConfig
from block_recurrent.config.stored import read_run_config
from block_recurrent.errors import EXIT_CODES
from block_recurrent.parallel import processes
from block_recurrent.training.loop import train


def write_run(run: RunConfig, path: Path) -> None:
    path.write_text(json.dumps(dataclasses.asdict(run)))


def main(run_file: str, workdir: str, *several: str) -> None:
    if several:
        coordinator, count, index = several
        processes.initialise(coordinator, int(count), int(index))
    run = read_run_config(json.loads(Path(run_file).read_text()), run_file)
    try:
        train(run, epath.Path(workdir), Console(width=500))
    except tuple(EXIT_CODES) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CODES[type(error)])


if __name__ == "__main__":
    main(*sys.argv[1:])
