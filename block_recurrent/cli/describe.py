"""The command `describe`."""

from typing import Annotated

import typer

from block_recurrent.cli import gin_files
from block_recurrent.cli.options import CONSOLE, GinFiles, GinParams


def describe(
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="Number of devices; they need not be attached. Default: the attached ones."),
    ] = None,
) -> None:
    """Show the layers, parameters, FLOPs, memory and batch layout of an experiment without training.

    Example: python -m block_recurrent describe --gin-file gin/runs/quickstart.gin
    """
    gin_files.parse(gin_file, gin_param)
    run = gin_files.configured_run()
    import jax

    from block_recurrent.aot.summary import summarise
    from block_recurrent.cli import console

    summary = summarise(run, jax.device_count() if devices is None else devices)
    console.table(CONSOLE, ("layer", "size"), summary.layers)
    console.table(CONSOLE, ("FLOPs per token (without masked keys and recomputation)", ""), summary.flops)
    console.table(CONSOLE, ("memory per device: what persists between steps, and the gradients", ""), summary.memory)
    console.table(CONSOLE, ("batch", ""), summary.batch)
