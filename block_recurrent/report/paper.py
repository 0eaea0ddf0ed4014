"""The runs' scores beside the paper's cells."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from block_recurrent.evaluation.records import Estimate
from block_recurrent.evaluation.run_results import ResultSet, SplitResults
from block_recurrent.paper.tables import LATER_RUNS, TABLE_1, TABLE_2, Column, PaperRow, PaperTable
from block_recurrent.report.formats import interval, short


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One number as the page shows it.

    Attributes:
        text: the number.
        origin: `measured` by a run of this report, or a cell of the paper: `corroborated` or `recalled`.
        interval: its confidence interval; empty for the paper's.
        note: split and data, where they are not the paper's.
    """

    text: str
    origin: Literal["measured", "corroborated", "recalled"]
    interval: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row; `run` is None for the paper's own."""

    name: str
    run: str | None
    cells: tuple[Cell | None, ...]
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableWithRuns:
    """A table of the paper with the runs above its rows.

    Attributes:
        title: of the table.
        source: of the paper's cells.
        columns: headings with their units, `(title, unit, stand_in)`.
        rows: the runs, then the paper's.
    """

    title: str
    source: str
    columns: tuple[tuple[str, str, bool], ...]
    rows: tuple[Row, ...]


def tables_with_runs(results: ResultSet) -> list[TableWithRuns]:
    """Table 1 always, with columns for data that the paper knows nothing of; the other tables where a run fits them."""
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
    """A row for every run, with what it was evaluated on in the columns of that data."""
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
    """The paper's cells are of test splits: a test score stands before that of another split."""
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
    notes = ([] if about.split == "test" else [about.split]) + (["stand-in"] if about.stand_in else [])
    return Cell(text=short(value.value, 3), origin="measured", interval=interval(value, 3), note=", ".join(notes))


def _paper_row(row: PaperRow, table: PaperTable, others: int) -> Row:
    found = [row.cells.get(column.name) for column in table.columns]
    cells = [None if cell is None else Cell(text=cell.text, origin=cell.provenance) for cell in found]
    return Row(name=row.name, run=None, cells=(*cells, *[None] * others), note=row.note)
