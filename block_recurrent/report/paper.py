"""The paper's tables with rows for the runs of the report."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from block_recurrent.evaluation.records import Estimate
from block_recurrent.evaluation.run_results import ResultSet, SplitResults
from block_recurrent.paper.tables import LATER_RUNS, TABLE_1, TABLE_2, Column, PaperRow, PaperTable
from block_recurrent.report.formats import interval, short


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
        columns: `(title, unit, stand_in)` of each column.
        rows: the runs, then the rows of the paper.
    """

    title: str
    source: str
    columns: tuple[tuple[str, str, bool], ...]
    rows: tuple[Row, ...]


def tables_with_runs(results: ResultSet) -> list[TableWithRuns]:
    """Returns the paper's tables with the scores of the runs.

    Table 1 is always included, with extra columns for data that the paper does not use; Table 2 and the later runs only
    if a run has a score for one of their columns.
    """
    others = list(dict.fromkeys(about.label for about in results.data if about.paper_column is None))
    tables = [_table_with_runs(results, TABLE_1, others)]
    fitting = [_table_with_runs(results, table, []) for table in (TABLE_2, LATER_RUNS)]
    return tables + [table for table in fitting if table.rows[0].run is not None]


def _table_with_runs(results: ResultSet, table: PaperTable, others: list[str]) -> TableWithRuns:
    columns = tuple((c.title, c.unit, c.stand_in) for c in table.columns)
    columns += tuple((label, "bits per token; not the paper's data", False) for label in others)
    return TableWithRuns(
        title=table.title,
        source=table.source,
        columns=columns,
        rows=(*_measured(results, table, others), *(_paper_row(row, table, len(others)) for row in table.rows)),
    )


def _measured(results: ResultSet, table: PaperTable, others: list[str]) -> Iterator[Row]:
    """Yields a row for every run with a score, in the columns of its data."""
    for run in results.runs:
        cells: list[Cell | None] = [None] * (len(table.columns) + len(others))
        for evaluated in run.evaluations:
            about = evaluated.scores.data
            for place, column in enumerate(table.columns):
                if about.paper_column is not None and column.paper_column == about.paper_column:
                    cells[place] = _better(cells[place], _cell(column, evaluated))
            if about.paper_column is None and about.label in others:
                place = len(table.columns) + others.index(about.label)
                cells[place] = _better(cells[place], _own(evaluated.scores.bits_per_token, evaluated))
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
    return _own(value, evaluated)


def _own(value: Estimate, evaluated: SplitResults) -> Cell:
    about = evaluated.scores.data
    notes = [] if about.split == "test" else [about.split]
    notes += [name for name, is_so in (("stand-in", about.stand_in), ("partial", about.part)) if is_so]
    return Cell(text=short(value.value, 3), origin="measured", interval=interval(value, 3), note=", ".join(notes))


def _paper_row(row: PaperRow, table: PaperTable, others: int) -> Row:
    found = [row.cells.get(column.name) for column in table.columns]
    cells = [None if cell is None else Cell(text=cell.text, origin=cell.provenance) for cell in found]
    return Row(name=row.name, run=None, cells=(*cells, *[None] * others), note=row.note)
