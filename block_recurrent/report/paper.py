"""The paper's tables with rows for the runs of the report."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Literal

from block_recurrent.evaluation.run_results import ResultSet, SplitResults
from block_recurrent.paper.tables import LATER_RUNS, TABLE_1, TABLE_2, Column, PaperRow, PaperTable
from block_recurrent.report.formats import interval, number, perplexity


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A formatted number.

    Attributes:
        text: the number.
        origin: `measured` for a run of the report; `corroborated` or `recalled` for a cell of the paper.
        interval: confidence interval; empty for a cell of the paper.
        note: split and data if they differ from the paper's.
    """

    text: str
    origin: Literal["measured", "corroborated", "recalled"]
    interval: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row; `run` is None for a row of the paper."""

    name: str
    run: str | None
    cells: tuple[Cell | None, ...]
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableWithRuns:
    """A table of the paper with rows for the runs above its own.

    Attributes:
        title: title of the table.
        source: source of the paper's cells.
        columns: `(title, unit)` of each column.
        rows: the runs, then the rows of the paper.
    """

    title: str
    source: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]

    @property
    def has_runs(self) -> bool:
        """True if a run of the report has a score for one of the columns."""
        return any(row.run is not None for row in self.rows)


def tables_with_runs(results: ResultSet) -> list[TableWithRuns]:
    """Returns the paper's tables with the scores of the runs: each table that a run has a score for.

    Without such a run, Table 1 alone, without runs. Scores on data that the paper does not use are in no table.
    """
    tables = [_table_with_runs(results, table) for table in (TABLE_1, TABLE_2, LATER_RUNS)]
    return [table for table in tables if table.has_runs] or tables[:1]


def _table_with_runs(results: ResultSet, table: PaperTable) -> TableWithRuns:
    return TableWithRuns(
        title=table.title,
        source=table.source,
        columns=tuple((column.title, column.unit) for column in table.columns),
        rows=(*_measured(results, table), *(_paper_row(row, table) for row in table.rows)),
    )


def _measured(results: ResultSet, table: PaperTable) -> Iterator[Row]:
    """Yields a row for every run with a score, in the columns of its data."""
    for run in results.runs:
        cells: list[Cell | None] = [None] * len(table.columns)
        for evaluated in run.evaluations:
            about = evaluated.scores.data
            for place, column in enumerate(table.columns):
                if about.paper_column is not None and column.paper_column == about.paper_column:
                    cells[place] = _better(cells[place], _cell(column, evaluated))
        if any(cells):
            yield Row(name=run.name, run=run.name, cells=tuple(cells))


def _better(old: Cell | None, new: Cell) -> Cell:
    """Prefers a score of the test split, which the paper uses, to one of another split."""
    return new if old is None or not new.note else old


def _cell(column: Column, evaluated: SplitResults) -> Cell:
    scores = evaluated.scores
    value = {
        "bits per token": scores.bits_per_token,
        "bits per byte": scores.bits_per_byte,
        "perplexity per token": scores.token_perplexity,
        "perplexity per word": scores.word_perplexity,
    }[column.unit]
    form = perplexity if column.unit.startswith("perplexity") else functools.partial(number, digits=3)
    about = scores.data
    notes = [] if about.split == "test" else [about.split]
    notes += [name for name, is_so in (("stand-in", about.stand_in), ("partial", about.part)) if is_so]
    return Cell(text=form(value.value), origin="measured", interval=interval(value, form), note=", ".join(notes))


def _paper_row(row: PaperRow, table: PaperTable) -> Row:
    found = [row.cells.get(column.name) for column in table.columns]
    cells = [None if cell is None else Cell(text=cell.text, origin=cell.provenance) for cell in found]
    return Row(name=row.name, run=None, cells=tuple(cells), note=row.note)
