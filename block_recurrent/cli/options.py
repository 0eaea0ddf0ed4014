"""Options and helpers that several commands share."""

from typing import Annotated

import typer
from etils import epath
from rich.console import Console

from block_recurrent.files import expand, resolve

CONSOLE = Console()
STDERR = Console(stderr=True)

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
VocabularyFile = Annotated[
    str | None,
    typer.Option(
        "--vocabulary",
        metavar="FILE",
        parser=expand,
        help="Vocabulary of the data, if its file has moved; a different vocabulary is refused.",
    ),
]


def absolute(path: str) -> epath.Path:
    """Returns a path of the command line as an absolute path, with `~` expanded; a URL is unchanged."""
    return resolve(path)
