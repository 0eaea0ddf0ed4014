"""Options and helpers that several commands share."""

from pathlib import Path
from typing import Annotated

import typer
from etils import epath
from rich.console import Console

from block_recurrent.errors import InputError
from block_recurrent.files import resolve

CONSOLE = Console()

GinFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--gin-file",
        metavar="FILE",
        help="Experiment file, e.g. gin/runs/quickstart.gin. It is looked up in the working directory, then in the "
        "installed package. Repeatable, in any order: two files that bind one field to different values are an error.",
    ),
]
GinParams = Annotated[
    list[str] | None,
    typer.Option(
        "--gin-param",
        metavar="NAME=VALUE",
        help="Overrides the files, e.g. TrainConfig.num_steps=100. Text needs quotes of its own: "
        "\"DataConfig.store='x'\". Repeatable.",
    ),
]
Workdir = Annotated[
    str,
    typer.Option(
        "--workdir",
        metavar="DIR",
        help="Folder of the run, local or gs://. Holds checkpoints, metrics and run.json.",
    ),
]


def absolute(path: str) -> epath.Path:
    """Returns a path of the command line as an absolute path, with `~` expanded; a URL is unchanged."""
    return resolve(path)


def read_text(path: Path) -> str:
    """Returns the text of a file that was named on the command line.

    Raises:
        InputError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from None
