"""`train`."""

from typing import Annotated

import typer

from block_recurrent.cli import gin_files
from block_recurrent.cli.options import CONSOLE, GinFiles, GinParams, Workdir, absolute
from block_recurrent.errors import InputError


def train(
    workdir: Workdir,
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            metavar="PATH",
            help="Begin a new run with these parameters and a fresh optimizer: a workdir or its checkpoints/STEP, a "
            "folder that `export` wrote, an .npz of the official code's parameters, or a checkpoint_STEP that the "
            "official code wrote. A run that has begun goes on by itself.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(metavar="FIRST:LAST", help="Take an xprof trace of these steps, into WORKDIR/profile."),
    ] = None,
    coordinator: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Of process 0, for several processes outside Cloud TPU."),
    ] = None,
    num_processes: Annotated[int | None, typer.Option("--num-processes", help="How many there are.")] = None,
    process_id: Annotated[int | None, typer.Option("--process-id", help="Which one this is, from 0.")] = None,
) -> None:
    """Train; started again on the same workdir, continue from its newest good checkpoint.

    SIGTERM or Ctrl-C saves and ends with exit code 75; the same command continues. On a Cloud TPU pod the processes
    find one another; elsewhere give --coordinator, --num_processes and --process_id to each.

    Exit codes: 0 finished, 2 something given is wrong, 3 a loss was not finite, 4 another process is gone, 75 asked to
    end.

    Example: python -m block_recurrent train --gin_file gin/runs/quickstart.gin --workdir runs/quickstart
    """
    gin_files.parse(gin_file, gin_param)
    run = gin_files.configured_run()
    steps = _profiled_steps(profile)
    from block_recurrent.cli import views
    from block_recurrent.parallel import preflight, processes
    from block_recurrent.training.loop import train as train_run

    processes.initialise(coordinator, num_processes, process_id)
    folder = absolute(workdir)
    preflight.check(folder)
    result = train_run(
        run,
        folder,
        CONSOLE,
        config_gin=gin_files.operative_config(),
        init_from=None if init_from is None else absolute(init_from),
        profile=steps,
    )
    if not processes.is_primary():
        return
    views.show_result(CONSOLE, run.data.eval_split, result)
    views.show_next_steps(CONSOLE, workdir)


def _profiled_steps(profile: str | None) -> range:
    if profile is None:
        return range(0)
    first, _, last = profile.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise InputError(f"--profile {profile}: must be FIRST:LAST, two steps from 0 in that order, e.g. 10:12")
    return range(int(first), int(last) + 1)
