"""The command `report`."""

from typing import Annotated

import typer

from block_recurrent.cli import interruption
from block_recurrent.cli.options import CONSOLE
from block_recurrent.files import resolve


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Folders of runs, evaluated exports, or output folders of `evaluate` and `compare`.",
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Output file, FILE.html.")] = "report.html",
) -> None:
    """Write one HTML page that compares runs by the results of `evaluate` and `compare`; it needs no network.

    Figures are also written as PNG and SVG to the folder FILE_figures next to the page.

    Example: python -m block_recurrent report runs/xl runs/recurrent comparisons/recurrent --out report.html
    """
    from block_recurrent.cli.console import line
    from block_recurrent.evaluation.run_results import read_results
    from block_recurrent.progress import Stages
    from block_recurrent.report.page import write_report

    interruption.keeps(f"{resolve(out)} was not written")
    results = read_results([resolve(run) for run in runs])
    with Stages("report", CONSOLE) as stages:
        pictures = write_report(results, resolve(out), progress=lambda done, total: stages("figures", done, total))
    line(CONSOLE, f"written to {resolve(out)}; figures as PNG and SVG in {pictures}")
