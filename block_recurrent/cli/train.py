"""The `train` command."""

from typing import Annotated, Any

import typer
from etils import epath

from block_recurrent.cli import gin_files, interruption
from block_recurrent.cli.compilation_cache import CompilationCache, use_compilation_cache
from block_recurrent.cli.options import CONSOLE, GinFiles, GinParams, VocabularyFile, Workdir, absolute
from block_recurrent.cli.several_processes import Coordinator, NumProcesses, ProcessId
from block_recurrent.config import RunConfig
from block_recurrent.errors import InputError
from block_recurrent.registry import TRACKERS


def train(
    workdir: Workdir,
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            metavar="PATH",
            help="Start a new run from these parameters, with a new optimizer state: a workdir or its "
            "checkpoints/STEP, a folder written by `export`, an .npz of the official code's parameters, or a "
            "checkpoint_STEP of the official code. Ignored when the run continues from its own checkpoint.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(metavar="FIRST:LAST", help="Write an xprof trace of these steps to WORKDIR/profile."),
    ] = None,
    coordinator: Coordinator = None,
    num_processes: NumProcesses = None,
    process_id: ProcessId = None,
    vocabulary: VocabularyFile = None,
    tracker: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Also send the metrics to a tracker: wandb (extra `wandb`), or one that an imported module registers.",
        ),
    ] = None,
    compilation_cache: CompilationCache = True,
) -> None:
    """Train a model; with a workdir that holds a run, continue from its newest good checkpoint.

    SIGTERM, Ctrl-C and a closed standard output save a checkpoint; the same command continues. On a Cloud TPU pod the
    processes find one another; elsewhere give --coordinator, --num-processes and --process-id to each process.

    Exit codes: 0 finished, 2 wrong arguments, configuration or data, 3 a loss was not finite, 4 another process is
    missing, 75 stopped by SIGTERM, 130 by Ctrl-C, 141 by a closed standard output.

    Example: python -m block_recurrent train --gin-file gin/runs/quickstart.gin --workdir runs/quickstart
    """
    gin_files.parse(gin_file, gin_param)
    run = gin_files.configured_run()
    steps, make_tracker = _profiled_steps(profile), _tracker(tracker)
    from block_recurrent.cli import views
    from block_recurrent.parallel import preflight, processes
    from block_recurrent.training.loop import train as train_run

    use_compilation_cache(compilation_cache)
    processes.initialise(coordinator, num_processes, process_id)
    folder = absolute(workdir)
    interruption.keeps(lambda: kept_by_training(folder), resumable=True, saves_itself=True)
    preflight.check(folder)
    actions = _state_reports(run)
    result = train_run(
        run,
        folder,
        CONSOLE,
        config_gin=gin_files.operative_config(),
        init_from=None if init_from is None else absolute(init_from),
        profile=steps,
        actions=actions,
        vocabulary=vocabulary,
        tracker=make_tracker,
    )
    if not processes.is_primary():
        return
    views.show_result(CONSOLE, run.data.eval_split, result)
    views.show_next_steps(CONSOLE, workdir, run.data.eval_split)


def kept_by_training(folder: epath.Path) -> str:
    """Returns the newest checkpoint of a workdir as part of a message."""
    from block_recurrent.training.checkpoint import CHECKPOINTS

    checkpoints = folder / CHECKPOINTS
    steps = [int(path.name) for path in checkpoints.iterdir() if path.name.isdigit()] if checkpoints.exists() else []
    kept = f"the checkpoint of step {max(steps)} is kept" if steps else "nothing was saved yet"
    return f"{folder}: {kept}; the same command continues"


def _state_reports(run: RunConfig) -> list[Any]:
    if run.train.state_report_every is None:
        return []  # spares the default run an import
    from block_recurrent.evaluation.state_report import make_state_reports

    return make_state_reports(run)


def _tracker(name: str | None) -> Any:
    """Returns the class of a tracker."""
    if name is None:
        return None
    if name == "wandb":
        import block_recurrent.training.wandb_tracker  # noqa: F401  (registers itself)

    return TRACKERS.get(name)


def _profiled_steps(profile: str | None) -> range:
    if profile is None:
        return range(0)
    first, _, last = profile.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise InputError(f"--profile {profile}: must be FIRST:LAST, two steps from 0 in that order, e.g. 10:12")
    return range(int(first), int(last) + 1)
