"""Trains and evaluates the missing runs of a table: `python -m experiments.tables.run_table --table table1 --list`.

The program may be interrupted: the next call continues from the newest checkpoint and skips finished runs. A run is
finished when its small JSON file exists in the folder of results. For a run that was trained and evaluated on another
machine and copied to --runs, only this file is written.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from etils import epath
from rich.console import Console

from block_recurrent.cli import console
from block_recurrent.errors import InputError
from block_recurrent.files import expand, local_path
from block_recurrent.model.language_model import count_params
from block_recurrent.paper.reproduction import run_folder
from block_recurrent.paper.tables import TABLES, PaperTable
from experiments.laptop import python_packages
from experiments.laptop.table import LAPTOP, SEEDS
from experiments.tables.experiment import Experiment, experiments, training_flops

CONSOLE = Console()
ALL = {**TABLES, LAPTOP.name: LAPTOP}
RECIPES = ("inverse_square_root", "cosine")
BASELINES = ("Slide:13L", "Slide:13L 150M", "Slide:+1 layer")


def list_experiments(found: list[Experiment]) -> None:
    """Prints every run with its size relative to the baseline's, and its state."""
    sizes = {}
    for experiment in found:
        run = experiment.config()
        params = count_params(run.model) - run.model.vocab_size * run.model.embed_dim
        sizes[experiment] = run, params, training_flops(run)
    baselines = {e.data: sizes[e][1:] for e in found if e.row in BASELINES}
    rows = []
    for experiment, (run, params, flops) in sizes.items():
        baseline = baselines.get(experiment.data)
        relative = ["", ""] if baseline is None else [f"{params / baseline[0]:.3f}", f"{flops / baseline[1]:.3f}"]
        tokens = run.tokens_per_step
        counts = [f"{params / 1e6:,.2f} M", relative[0], f"{flops / 1e6:,.1f} M", relative[1], f"{tokens:,}"]
        about = [experiment.row, experiment.gin_file, experiment.data, str(experiment.seed)]
        rows.append((*about, *counts, f"{run.train.num_steps:,}", experiment.state()))
    heads = ("row", "file", "data", "seed", "parameters*", "relative", "FLOPs/token", "relative", "tokens/step")
    console.table(CONSOLE, (*heads, "steps", "state"), rows)
    CONSOLE.print(
        "* without the embedding; FLOPs of training; relative to the row with one additional layer", style="dim"
    )


def print_commands(missing: list[Experiment]) -> None:
    """Prints the commands of the missing runs as a shell script."""
    for number, experiment in enumerate(missing, 1):
        print(_heading(number, len(missing), experiment))
        for command in experiment.commands():
            print(_shell(command))


def print_tpu_commands(missing: list[Experiment], tpu: str) -> None:
    """Prints the commands of the missing runs, with training and evaluation on the TPU slice NAME:ZONE (docs/tpu.md).

    Raises:
        InputError: the name is not complete, or a run or its store is not on a bucket, which all hosts read.
    """
    name, _, zone = tpu.partition(":")
    if not name or not zone:
        raise InputError(f"--tpu {tpu}: must be NAME:ZONE, e.g. table1:us-central2-b")
    for experiment in missing:
        _check_on_bucket("--runs", str(experiment.runs))
        _check_on_bucket("DataConfig.store (--stores)", experiment.config().data.store)
    script = f"NAME={name} ZONE={zone} experiments/tpu/tpu.sh"
    for number, experiment in enumerate(missing, 1):
        prepare, train, evaluate = experiment.commands()
        arguments = [*train[train.index("train") :], "--gin-file", "gin/hardware/tpu.gin"]
        local = run_folder(epath.Path("runs"), experiment.gin_file, experiment.data, experiment.seed)
        print(_heading(number, len(missing), experiment))
        print(f"{_shell(prepare)}  # from any machine")
        print(f"{script} {shlex.join(arguments)}")
        print(f"{script} status  # after the end of training:")
        print(f"{script} {shlex.join(evaluate[evaluate.index('evaluate') :])}")
        print(f"{script} fetch {experiment.workdir} {local}  # after the end of the evaluation")


def _check_on_bucket(name: str, path: str) -> None:
    if not path.startswith("gs://"):
        raise InputError(f"--tpu: {name} = {path}: must be on gs://, because the hosts of a slice share no disk")


def _stores(arguments: argparse.Namespace) -> str | None:
    """Returns the folder of the stores: with --tpu the neighbour of the runs, unless a parameter names the store."""
    named = any(param.partition("=")[0].strip() in ("STORE", "DataConfig.store") for param in arguments.gin_param)
    if arguments.stores or not arguments.tpu or named:
        return arguments.stores
    return f"{arguments.runs.rstrip('/').rpartition('/')[0]}/prepared" if "://" in arguments.runs else None


def _heading(number: int, count: int, experiment: Experiment) -> str:
    return f"# {number} of {count}: {experiment.row} on {experiment.data}, seed {experiment.seed}"


def _shell(command: list[str]) -> str:
    return shlex.join(["python", *command[1:]])


def run_to_end(command: list[str]) -> int:
    """Runs a command and returns its exit code; SIGTERM is passed on, and the command may save before it ends."""
    with subprocess.Popen(command) as process:
        # The terminal sends Ctrl-C to the command, too.
        handlers = {signal.SIGINT: lambda *_: None, signal.SIGTERM: lambda *_: process.terminate()}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            return process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def launch(table: PaperTable, missing: list[Experiment]) -> int:
    """Runs the experiments in turn; returns the exit code of the first command that fails, or 0."""
    if any(experiment.data == "python_packages" for experiment in missing):
        python_packages.main()
    started = time.monotonic()
    for number, experiment in enumerate(missing):
        left = (
            f", {(time.monotonic() - started) / number * (len(missing) - number) / 60:.0f} min left" if number else ""
        )
        what = f"{experiment.row} on {experiment.data}, seed {experiment.seed}"
        CONSOLE.rule(f"{number + 1} of {len(missing)}: {what}{left}")
        for command in [] if experiment.state() == "evaluated" else experiment.commands():
            code = run_to_end(command)
            if code:
                CONSOLE.print(f"exit code {code}: {shlex.join(command)}. Call this program again to continue.")
                return code
        experiment.write_result(table.name)
        CONSOLE.print(f"written to {experiment.result_path}")
    return 0


def default_results(table: PaperTable) -> Path:
    """Returns the folder of a table's result files, relative to the repository's root."""
    return Path("experiments/laptop/results") if table is LAPTOP else Path("experiments/tables/results") / table.name


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, choices=list(ALL))
    parser.add_argument("--list", action="store_true", help="print every run with its size and state")
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the missing runs")
    parser.add_argument("--tpu", metavar="NAME:ZONE", help="with --dry-run: train and evaluate on this slice")
    parser.add_argument(
        "--stores",
        metavar="DIR",
        help="folder of the token stores, local or gs:// [default: prepared; with --tpu, prepared next to --runs]",
    )
    parser.add_argument("--rows", default="", help="only the row of this name, or rows with this text in their name")
    parser.add_argument("--data", nargs="+", help="names of files in gin/data/ [default: all columns]")
    parser.add_argument(
        "--recipe", choices=RECIPES, default=RECIPES[0], help="learning rate schedule [default: %(default)s]"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="seeds of every row [default: 0; the laptop's rows have their own]"
    )
    parser.add_argument(
        "--gin-param", "--gin_param", action="append", default=[], metavar="NAME=VALUE", help="applied to all runs"
    )
    parser.add_argument(
        "--runs",
        type=expand,
        default="runs",
        metavar="DIR",
        help="folder of the runs, local or gs:// [default: %(default)s]",
    )
    parser.add_argument(
        "--results",
        type=local_path,
        help="folder of the result files [default: experiments/tables/results/TABLE; laptop has its own]",
    )
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    table, laptop = ALL[arguments.table], arguments.table == LAPTOP.name
    if arguments.tpu and not arguments.dry_run:
        raise InputError("--tpu: goes with --dry-run")
    seeds = {row.name: tuple(arguments.seeds) for row in table.rows} if arguments.seeds else SEEDS if laptop else {}
    found = experiments(
        table,
        runs=epath.Path(arguments.runs),
        results=arguments.results or default_results(table),
        data=arguments.data,
        recipe=None if laptop else arguments.recipe,
        seeds=seeds,
        rows=arguments.rows,
        params=tuple(arguments.gin_param),
        stores=_stores(arguments),
    )
    if arguments.list:
        list_experiments(found)
        return 0
    missing = [experiment for experiment in found if not experiment.finished()]
    for experiment in missing:
        experiment.config()  # report a mistake in any of them before the first run starts
    if arguments.dry_run:
        print_tpu_commands(missing, arguments.tpu) if arguments.tpu else print_commands(missing)
        return 0
    return launch(table, missing)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader has closed the pipe; keep Python's final flush from failing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
