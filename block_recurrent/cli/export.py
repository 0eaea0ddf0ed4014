"""The command `export`."""

from typing import Annotated

import typer

from block_recurrent.cli.options import CONSOLE, Workdir
from block_recurrent.files import resolve


def export(
    workdir: Workdir,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder to create, local or gs://.")],
    functions: Annotated[
        bool,
        typer.Option("--functions", help="Also export prefill and decode step as StableHLO (CPU, TPU), for serving."),
    ] = False,
) -> None:
    """Write a run's parameters as safetensors, with the configuration and the vocabulary's fingerprint as JSON.

    With --functions, also write prefill.stablehlo and decode.stablehlo (jax.export), which run without this package;
    functions.json documents their arguments.

    The newest checkpoint is exported; pass --workdir WORKDIR/checkpoints/STEP for another one.

    Example: python -m block_recurrent export --workdir runs/quickstart --out exported
    """
    from block_recurrent.cli import console
    from block_recurrent.interop.safetensors import CONFIG_FILE, PARAMS_FILE
    from block_recurrent.training.saved_run import SavedRun

    saved = SavedRun.load(resolve(workdir))
    saved.export(resolve(out))
    console.line(CONSOLE, f"step {saved.step}: {PARAMS_FILE} and {CONFIG_FILE} written to {out}")
    if functions:
        from block_recurrent.generation.stablehlo import export_functions

        export_functions(
            resolve(out),
            config=saved.config.model,
            segment_length=saved.config.data.segment_length,
            vocabulary_size=saved.vocabulary().size,
        )
        console.line(CONSOLE, f"prefill.stablehlo, decode.stablehlo and functions.json written to {out}")
