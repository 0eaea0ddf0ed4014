"""The command `report`."""

from typing import Annotated

import typer

from block_recurrent.cli import interruption
from block_recurrent.cli.options import CONSOLE
from block_recurrent.errors import InputError
from block_recurrent.files import resolve


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...",
            help="Folders of runs, evaluated exports, or output folders of `evaluate` and `compare`.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME_OR_FOLDER",
            help="An exported model with the results that it carries: name of a packaged one, or folder. Repeatable.",
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Output file, FILE.html.")] = "report.html",
) -> None:
    """Write one HTML page that compares runs by the results of `evaluate` and `compare`; it needs no network.

    An exported model carries the results of `evaluate` that its run had. Results of `evaluate --model ... --out DIR`
    are shown by naming DIR.

    Figures are also written as PNG and SVG to the folder FILE_figures next to the page.

    Example: python -m block_recurrent report runs/xl runs/recurrent comparisons/recurrent --out report.html
    """
    from block_recurrent.cli.console import line
    from block_recurrent.evaluation.run_results import read_results
    from block_recurrent.interop.model_folder import model_folder
    from block_recurrent.progress import Stages
    from block_recurrent.report.page import write_report

    if not runs and not model:
        raise InputError("report: name at least one RUN or --model")
    interruption.keeps(f"{resolve(out)} was not written")
    folders = [*map(resolve, runs or ()), *map(model_folder, model or ())]
    results = read_results(folders)
    with Stages("report", CONSOLE) as stages:
        pictures = write_report(results, resolve(out), progress=lambda done, total: stages("figures", done, total))
    line(CONSOLE, f"written to {resolve(out)}; figures as PNG and SVG in {pictures}")
