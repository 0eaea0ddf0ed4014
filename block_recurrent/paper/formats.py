"""Formats a reproduced table as Markdown and as CSV."""

import csv
import io
from collections.abc import Callable, Mapping

from block_recurrent.paper.reproduction import ComparedTable, Reproduced
from block_recurrent.paper.tables import Column, PaperCell, PaperRow

_MISSING = "missing"
_NOTE = (
    "Lower is better for bits, perplexities and step times. A `paper` cell is marked `recalled` unless an independent "
    "publication repeats it: it has not been checked against the PDF. A `here` cell is the mean over finished seeds."
)


def as_markdown(compared: ComparedTable) -> str:
    """Returns the table as Markdown: two columns, `paper` and `here`, per column; labels follow as numbered notes."""
    table, notes = compared.table, _Notes()
    heads = ["", *(f"{column.title}, {who}" for column in table.columns for who in ("paper", "here")), ""]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for compared_row in compared.rows:
        cells = [compared_row.row.name]
        for column in table.columns:
            cell = compared_row.cells[column.name]
            cells += [paper_text(cell.paper), _our_text(compared_row.row, cell.ours, notes)]
        lines.append(_line([*cells, compared_row.row.note]))
    units = [f"{column.title}: {_about(column)}" for column in table.columns]
    parts = [f"## {table.title}", f"Source: {table.source}.", "\n".join(lines), "; ".join(units) + ".", _NOTE]
    return "\n\n".join([*parts, *notes.lines()]) + "\n"


def as_csv(compared: ComparedTable) -> str:
    """Returns the table as CSV, one line per cell, with all labels."""
    names = ("table", "row", "column", "unit", "split", "paper", "paper_provenance", "here", "seeds", "here_labels")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for compared_row in compared.rows:
        for column in compared.table.columns:
            cell = compared_row.cells[column.name]
            paper = (cell.paper.text, cell.paper.provenance) if cell.paper else (_MISSING, "")
            ours = (_absent(compared_row.row), 0, "")
            if cell.ours is not None:
                ours = (_digits(cell.ours), len(cell.ours.values), "; ".join(cell.ours.labels))
            about = (compared.table.name, compared_row.row.name, column.title, column.unit, column.split or "")
            writer.writerow((*about, *paper, *ours))
    return text.getvalue()


FORMATS: Mapping[str, Callable[[ComparedTable], str]] = {"markdown": as_markdown, "csv": as_csv}


class _Notes:
    """Numbered notes below a table, one per distinct label."""

    def __init__(self):
        self._numbers: dict[str, int] = {}

    def refer(self, labels: tuple[str, ...]) -> str:
        numbers = [self._numbers.setdefault(label, len(self._numbers) + 1) for label in labels]
        return f" [{', '.join(map(str, numbers))}]" if numbers else ""

    def lines(self) -> list[str]:
        return ["\n".join(f"[{number}] {label}  " for label, number in self._numbers.items())] if self._numbers else []


def _about(column: Column) -> str:
    return column.unit + (f", {column.split} split" if column.split else "")


def paper_text(cell: PaperCell | None) -> str:
    """Returns the text of a paper's cell, with a label if no other source has confirmed it."""
    if cell is None:
        return _MISSING
    return cell.text if cell.provenance == "corroborated" else f"{cell.text} recalled"


def _our_text(row: PaperRow, ours: Reproduced | None, notes: _Notes) -> str:
    if ours is None:
        return _absent(row)
    seeds = f" ({len(ours.values)} seeds)" if len(ours.values) > 1 else ""
    return _digits(ours) + seeds + notes.refer(ours.labels)


def _absent(row: PaperRow) -> str:
    return _MISSING if row.gin_file is not None else "no experiment"


def _digits(ours: Reproduced) -> str:
    return f"{ours.value:.3f}" if ours.value < 20 else f"{ours.value:.2f}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
