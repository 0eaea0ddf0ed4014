"""Commands that run in several processes, one on each host: options, start, output of the first process only, end."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from block_recurrent.cli.options import STDERR
from block_recurrent.cli.text_io import STANDARD
from block_recurrent.errors import InputError

if TYPE_CHECKING:
    from block_recurrent.parallel.placement import Placement

Coordinator = Annotated[
    str | None,
    typer.Option(
        "--coordinator", metavar="HOST:PORT", help="Address of process 0, for several processes outside Cloud TPU."
    ),
]
NumProcesses = Annotated[int | None, typer.Option("--num-processes", help="Number of processes.")]
ProcessId = Annotated[int | None, typer.Option("--process-id", help="Index of this process, from 0.")]
Fsdp = Annotated[
    int,
    typer.Option(
        "--fsdp",
        min=1,
        help="Devices that share the parameters, for a model that does not fit one device; as MeshConfig.fsdp in "
        "training.",
    ),
]

_SECONDS_TO_END = 3600.0  # the first process may still write results


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the processes of a command, compares them, and silences all but the first.

    Raises:
        InputError: the options, or the processes, do not fit together.
        MissingProcessError: another process did not come.
    """
    from block_recurrent.parallel import preflight, processes

    processes.initialise(coordinator, num_processes, process_id)
    preflight.check_processes(_arguments())
    if not processes.is_primary():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, for the rest of the process
        STDERR.quiet = True


def _arguments() -> list[str]:
    """Returns the command line without the index of this process."""
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        name, equals, _ = word.replace("_", "-").partition("=")
        if name != "--process-id":
            kept.append(word)
        elif not equals:
            next(words, None)
    return kept


def leave() -> None:
    """Waits until every process has ended its work; process 0 must not leave the others before."""
    from block_recurrent.parallel.processes import barrier

    barrier("every process to end the command", timeout_seconds=_SECONDS_TO_END)


def placement_if_needed(fsdp: int) -> "Placement | None":
    """Returns the placement on all devices of all processes; None for one process without `--fsdp`: one device."""
    import jax

    from block_recurrent.parallel.placement import Placement

    return Placement(fsdp=fsdp) if fsdp > 1 or jax.process_count() > 1 else None


def loading(fsdp: int) -> contextlib.AbstractContextManager[None]:
    """Returns a context that ends all processes if one cannot load the model or its data.

    Divided parameters are loaded by all processes together: then the others end when they miss this process.
    """
    from block_recurrent.parallel.processes import together

    return together() if fsdp == 1 else contextlib.nullcontext()


def read_texts(read: Callable[[], list[str | InputError]], *files: Path | None) -> list[str | InputError]:
    """Returns the texts of a command, which must be the same in all processes.

    Args:
        read: reads the texts.
        files: files that it reads.

    Raises:
        InputError: a text comes from standard input of several processes, or `read` raised it in one of them, or the
            texts differ.
    """
    import jax

    from block_recurrent.parallel import preflight
    from block_recurrent.parallel.processes import together

    if jax.process_count() > 1 and STANDARD in files:
        raise InputError("standard input: only one process would have it; give the text as an argument or a file")
    with together():
        texts = read()
    preflight.check_equal("texts", list(map(str, texts)))
    return texts


def output_of_the_first(path: Path | None) -> Path | None:
    """Returns the path of an output in the first process; in the others, a file that keeps nothing."""
    from block_recurrent.parallel.processes import is_primary

    return path if path is None or is_primary() else Path(os.devnull)
