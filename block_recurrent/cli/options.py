"""Options and helpers that several commands share."""

from typing import TYPE_CHECKING, Annotated

import typer
from etils import epath
from rich.console import Console

from block_recurrent.errors import InputError
from block_recurrent.files import expand, resolve

if TYPE_CHECKING:
    from block_recurrent.generation.generator import Generator
    from block_recurrent.parallel.placement import Placement

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
RunFolder = Annotated[
    str | None,
    typer.Option(
        "--workdir",
        metavar="DIR",
        help="Folder of a run, local or gs://, for its newest checkpoint, or RUN/checkpoints/STEP.",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME_OR_FOLDER",
        help="An exported model: a packaged one by name, such as sample; a folder that `export` wrote; or "
        "hf://OWNER/NAME of the Hugging Face hub, with @REVISION or without (extra `hub`).",
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
SegmentLength = Annotated[
    int | None,
    typer.Option(
        "--segment-length",
        metavar="TOKENS",
        min=1,
        help="Only for a model with an external memory: number of tokens after which the memory is written.",
        show_default="that of training",
    ),
]


def absolute(path: str) -> epath.Path:
    """Returns a path of the command line as an absolute path, with `~` expanded; a URL is unchanged."""
    return resolve(path)


def load_generator(
    workdir: str | None,
    model: str | None,
    *,
    batch_size: int,
    vocabulary: str | None,
    segment_length: int | None,
    placement: "Placement | None" = None,
) -> "Generator":
    """Loads the model that `--workdir` or `--model` names; `check_one_model` has checked that one is given.

    Raises:
        InputError: there is no such model, or `--segment-length` is given for a model without an external memory.
    """
    from block_recurrent.generation.generator import Generator

    load, name = (Generator.from_workdir, str(workdir)) if model is None else (Generator.from_folder, model)
    generator = load(
        name, batch_size=batch_size, vocabulary=vocabulary, segment_length=segment_length, placement=placement
    )
    if segment_length is not None and not generator.config.memory_layers:
        raise InputError(
            f"--segment-length {segment_length}: only for a model with an external memory; this one has none"
        )
    return generator


def check_one_model(command: str, workdir: str | None, model: str | None) -> None:
    """Checks that a command has one model.

    Raises:
        InputError: `--workdir` and `--model` are both given, or neither is.
    """
    if (workdir is None) == (model is None):
        raise InputError(
            f"{command}: give either --workdir or --model, {'such as --model sample' if model is None else 'not both'}"
        )
