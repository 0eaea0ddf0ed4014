"""The command `export`."""

from typing import TYPE_CHECKING, Annotated

import typer
from etils import epath

from block_recurrent.cli.options import CONSOLE, STDERR, VocabularyFile, Workdir
from block_recurrent.data.recorded_vocabulary import VOCABULARY_FILE
from block_recurrent.errors import InputError
from block_recurrent.files import resolve, whole_folder

if TYPE_CHECKING:
    from block_recurrent.data.vocabulary import Vocabulary
    from block_recurrent.training.saved_run import SavedRun


def export(
    workdir: Workdir,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder to create, local or gs://.")],
    functions: Annotated[
        bool,
        typer.Option("--functions", help="Also export prefill and decode step as StableHLO (CPU, TPU), for serving."),
    ] = False,
    vocabulary: VocabularyFile = None,
) -> None:
    """Write a run's parameters as safetensors, its configuration as JSON, and its vocabulary's file.

    With --functions, also write prefill.stablehlo and decode.stablehlo (jax.export), which run without this package;
    functions.json documents their arguments.

    The newest checkpoint is exported; pass --workdir WORKDIR/checkpoints/STEP for another one.

    Example: python -m block_recurrent export --workdir runs/quickstart --out exported
    """
    from block_recurrent.cli import console
    from block_recurrent.generation.stablehlo import MANIFEST_FILE
    from block_recurrent.interop.safetensors import CONFIG_FILE, PARAMS_FILE
    from block_recurrent.training.saved_run import SavedRun

    folder = resolve(out)
    for name in (PARAMS_FILE, CONFIG_FILE, MANIFEST_FILE):
        if (folder / name).exists():
            raise InputError(f"--out {out}: {name} is there already; choose another folder")
    saved = SavedRun.load(resolve(workdir))
    kept = _vocabulary(saved, vocabulary)
    try:
        with whole_folder(folder, last=(CONFIG_FILE, MANIFEST_FILE)) as partial:
            saved.export(partial, kept)
            if functions:
                _export_functions(saved, partial)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror or error}") from None
    console.line(CONSOLE, f"step {saved.step}: {PARAMS_FILE} and {CONFIG_FILE} written to {out}")
    if functions:
        console.line(CONSOLE, f"prefill.stablehlo, decode.stablehlo and functions.json written to {out}")


def _vocabulary(saved: "SavedRun", given: str | None) -> "Vocabulary | None":
    from block_recurrent.cli import console

    try:
        return saved.vocabulary(given)
    except InputError as error:
        if given is not None:
            raise
        console.line(STDERR, f"warning: the export has no {VOCABULARY_FILE}: {error}")
        return None


def _export_functions(saved: "SavedRun", folder: epath.Path) -> None:
    from block_recurrent.generation.stablehlo import export_functions

    export_functions(
        folder,
        config=saved.config.model,
        segment_length=saved.config.data.segment_length,
        vocabulary_size=saved.data["stores"][0]["vocabulary"]["size"],
    )
