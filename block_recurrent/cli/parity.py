"""The `check-parity` command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from block_recurrent.cli.options import CONSOLE
from block_recurrent.errors import InputError
from block_recurrent.files import local_path


def check_parity(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", parser=local_path, help="Fixtures (.npz).")],
    attention_kernel: Annotated[
        str, typer.Option(metavar="KERNEL", help="xla or fused: see ModelConfig.attention_kernel.")
    ] = "xla",
) -> None:
    """Compare the model with fixtures of the official code; exit code 1 if any error is over its limit."""
    from block_recurrent.cli import console
    from block_recurrent.interop.parity import LIMITS

    if missing := [file for file in files if not file.is_file()]:
        raise InputError(f"check-parity: {missing[0]}: no such file")
    if attention_kernel not in ("xla", "fused"):
        raise InputError(f"check-parity: --attention-kernel {attention_kernel}: must be xla or fused")
    limits = ", ".join(f"{kind} {limit:g}" for kind, limit in LIMITS.items())
    console.line(CONSOLE, f"largest errors (limits: {limits}; loss and gradients are relative)")
    passed = sum(_check(file, attention_kernel) for file in files)
    console.line(CONSOLE, f"{passed} of {len(files)} files within the limits")
    if passed < len(files):
        raise typer.Exit(1)


def _check(file: Path, attention_kernel: Any) -> bool:
    """Prints the errors of one fixture and returns whether all are within the limits."""
    from block_recurrent.cli import console
    from block_recurrent.interop.parity import LIMITS, check_fixture

    try:
        parity = check_fixture(file, attention_kernel=attention_kernel)
    except InputError as error:
        console.line(CONSOLE, f"{file.name}: OVER  {error}")
        return False
    over = [f"{kind} at {parity.places[kind]}" for kind in LIMITS if not parity.errors[kind] <= LIMITS[kind]]
    errors = "  ".join(f"{kind} {error:.1e}" for kind, error in parity.errors.items())
    verdict = f"OVER: {', '.join(over)}" if over else "ok"
    console.line(CONSOLE, f"{file.name}: {errors}  {verdict}")
    return not over
