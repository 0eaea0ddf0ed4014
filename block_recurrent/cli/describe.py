"""`describe`."""

from typing import Annotated

import typer

from block_recurrent.cli import gin_files
from block_recurrent.cli.options import CONSOLE, GinFiles, GinParams


def describe(
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="For how many devices; they need not be there. Default: those that are.")
    ] = None,
) -> None:
    """Show what an experiment amounts to without training: layers, parameters, FLOPs, memory, batch layout.

    Example: python -m block_recurrent describe --gin_file gin/runs/quickstart.gin
    """
    gin_files.parse(gin_file, gin_param)
    run = gin_files.configured_run()
    import jax

    from block_recurrent.aot.summary import describe as describe_run
    from block_recurrent.cli import console

    described = describe_run(run, jax.device_count() if devices is None else devices)
    console.table(CONSOLE, ("layer", "size"), described.layers)
    console.table(CONSOLE, ("FLOPs per token (masked keys and recomputation not counted)", ""), described.flops)
    console.table(CONSOLE, ("memory per device that outlives a step, and the gradients", ""), described.memory)
    console.table(CONSOLE, ("batch", ""), described.batch)
