"""`export`."""

from typing import Annotated

import typer

from block_recurrent.cli.options import CONSOLE, Workdir, absolute


def export(
    workdir: Workdir,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder to write, local or gs://.")],
    functions: Annotated[
        bool, typer.Option("--functions", help="Also reading and decoding as StableHLO (CPU, TPU), for serving.")
    ] = False,
) -> None:
    """Write a run's parameters as safetensors, with the configuration and the vocabulary's fingerprint as JSON.

    With --functions, also write prefill.stablehlo and decode.stablehlo (jax.export), which run without this package;
    functions.json says how to call them.

    Name WORKDIR/checkpoints/STEP to export another checkpoint than the newest.

    Example: python -m block_recurrent export --workdir runs/quickstart --out exported
    """
    from block_recurrent.cli import console
    from block_recurrent.interop.safetensors import CONFIG_FILE, PARAMS_FILE
    from block_recurrent.training.saved_run import SavedRun

    saved = SavedRun.load(absolute(workdir))
    saved.export(absolute(out))
    console.line(CONSOLE, f"step {saved.step}: {PARAMS_FILE} and {CONFIG_FILE} written to {out}")
    if functions:
        from block_recurrent.generation.stablehlo import export_functions

        export_functions(saved, absolute(out))
        console.line(CONSOLE, f"prefill.stablehlo, decode.stablehlo and functions.json written to {out}")
