"""`check-parity`."""

from pathlib import Path
from typing import Annotated

import typer

from block_recurrent.cli.options import CONSOLE
from block_recurrent.errors import InputError


def check_parity(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="Fixtures (.npz).")
    ],
) -> None:
    """Compare our model with what the official code computed; exit code 1 if any error is over its limit."""
    from block_recurrent.cli import console
    from block_recurrent.interop.parity import LIMITS, check_fixture

    limits = ", ".join(f"{kind} {limit:g}" for kind, limit in LIMITS.items())
    CONSOLE.print(
        f"largest errors (limits: {limits}; loss and gradients are relative)", highlight=False, soft_wrap=True
    )
    failed = 0
    for file in files:
        try:
            parity = check_fixture(file)
        except InputError as error:
            failed += 1
            console.line(CONSOLE, f"{file.name}: OVER  {error}")
            continue
        over = [f"{kind} at {parity.places[kind]}" for kind in LIMITS if not parity.errors[kind] <= LIMITS[kind]]
        failed += bool(over)
        errors = "  ".join(f"{kind} {error:.1e}" for kind, error in parity.errors.items())
        verdict = f"OVER: {', '.join(over)}" if over else "ok"
        console.line(CONSOLE, f"{file.name}: {errors}  {verdict}")
    console.line(CONSOLE, f"{len(files) - failed} of {len(files)} files within the limits")
    if failed:
        raise typer.Exit(1)
