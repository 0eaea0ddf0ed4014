"""Options and helpers that several commands share."""

from pathlib import Path
from typing import Annotated

import typer
from etils import epath
from rich.console import Console

from block_recurrent.errors import InputError

CONSOLE = Console()

GinFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--gin_file",
        metavar="FILE",
        help="Experiment file, e.g. gin/runs/quickstart.gin; looked up in the working directory, then among the files "
        "that came with the package. Repeatable; the order does not matter: two files that bind one parameter "
        "differently are an error.",
    ),
]
GinParams = Annotated[
    list[str] | None,
    typer.Option(
        "--gin_param",
        metavar="NAME=VALUE",
        help="Overrides the files, e.g. 'TrainConfig.num_steps=100'. Repeatable.",
    ),
]
Workdir = Annotated[
    str,
    typer.Option(
        "--workdir",
        metavar="DIR",
        help="The run's folder, local or gs://: checkpoints, metrics, run.json.",
    ),
]


def absolute(path: str) -> epath.Path:
    """A local path made absolute, as orbax wants it; a URL as it is."""
    return epath.Path(path if "://" in path else Path(path).absolute())


def read_text(path: Path) -> str:
    """The text of a file that the caller named.

    Raises:
        InputError: it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from None
