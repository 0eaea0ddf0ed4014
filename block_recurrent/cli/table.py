"""The command `table`."""

import sys
from typing import Annotated

import typer

from block_recurrent.cli import gin_files
from block_recurrent.config import RunConfig
from block_recurrent.errors import InputError
from block_recurrent.files import resolve


def table(
    name: Annotated[str, typer.Argument(metavar="TABLE", help="table1, table2, later_runs, scaling or ablations.")],
    runs: Annotated[
        str,
        typer.Option("--runs", metavar="DIR", help="Folder of the runs of experiments.tables.run_table."),
    ] = "runs",
    file_format: Annotated[str, typer.Option("--format", help="markdown or csv.")] = "markdown",
) -> None:
    """Print a table of the paper next to the results of runs; cells without a run are printed as missing.

    Example: python -m block_recurrent table table1 --runs runs
    """
    from block_recurrent.paper.formats import FORMATS
    from block_recurrent.paper.reproduction import compare_with_paper
    from block_recurrent.paper.tables import TABLES

    if name not in TABLES:
        raise InputError(f"table {name}: must be one of {', '.join(TABLES)}")
    if file_format not in FORMATS:
        raise InputError(f"--format {file_format}: must be one of {', '.join(FORMATS)}")
    folder = resolve(runs)
    if not folder.exists():
        raise InputError(f"--runs {folder}: no such folder")
    sys.stdout.write(FORMATS[file_format](compare_with_paper(TABLES[name], folder, paper_run)))


def paper_run(gin_file: str, data: str) -> RunConfig:
    """Returns the configuration of the paper's run: an experiment file with the file of a data set."""
    gin_files.parse([gin_file, f"gin/data/{data}.gin"], None)
    return gin_files.configured_run()
