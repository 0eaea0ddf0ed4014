"""Scores of runs in the paper's tables, and the provenance of the paper's cells."""

import dataclasses

import pytest

from block_recurrent.evaluation.run_results import ResultSet
from block_recurrent.paper.tables import TABLE_1, TABLE_2
from block_recurrent.report import formats
from block_recurrent.report.paper import tables_with_runs


def on(results: ResultSet, **data) -> ResultSet:
    """Returns the results with only the first run, as if evaluated on other data."""
    run = results.runs[0]
    (evaluated,) = run.evaluations
    scores = evaluated.scores
    moved = dataclasses.replace(scores, data=dataclasses.replace(scores.data, **data))
    run = dataclasses.replace(run, evaluations=(dataclasses.replace(evaluated, scores=moved),))
    return ResultSet(runs=(run,), comparisons=())


def test_other_data_has_a_column_of_its_own(results):
    (table,) = tables_with_runs(results)
    assert table.columns[-1] == ("jsonl", "bits per token; not the paper's data", False)
    measured, paper = table.rows[: len(results.runs)], table.rows[len(results.runs) :]
    for row, run in zip(measured, results.runs, strict=True):
        assert row.run == run.name
        assert row.cells[:-1] == (None,) * len(TABLE_1.columns)
        assert row.cells[-1] is not None
        assert row.cells[-1].text == f"{run.evaluations[0].scores.bits_per_token.value:.3f}"
        assert row.cells[-1].note == "validation"
    assert [row.name for row in paper] == [row.name for row in TABLE_1.rows]
    assert all(row.cells[-1] is None and row.run is None for row in paper)


def test_the_paper_s_cells_mark_recalled_numbers(results):
    (table,) = tables_with_runs(results)
    rows = {row.name: row for row in table.rows}
    assert [cell and cell.origin for cell in rows["Rec:fixed:skip"].cells[:5]] == ["corroborated"] * 5
    assert [cell and cell.origin for cell in rows["Rec:lstm:dual"].cells[:5]] == ["recalled"] * 5
    assert rows["Feedback:fixed:skip"].cells[4] is None


@pytest.mark.parametrize(
    ("column", "stand_in", "split", "place", "note"),
    [
        ("PG19 tokens", False, "test", 2, ""),
        ("PG19 tokens", False, "validation", 2, "validation"),
        ("PG19 bytes", False, "test", 1, ""),
        ("arXiv", True, "test", 3, "stand-in"),
        ("GitHub", True, "validation", 4, "validation, stand-in"),
    ],
)
def test_scores_on_the_paper_s_data_are_in_the_paper_s_columns(results, column, stand_in, split, place, note):
    moved = on(results, paper_column=column, stand_in=stand_in, split=split, label="data")
    table, *others = tables_with_runs(moved)
    own = table.rows[0]
    assert len(own.cells) == len(TABLE_1.columns)
    assert [index for index, cell in enumerate(own.cells) if cell] == [place]
    assert table.columns[place][0] == column
    assert own.cells[place].note == note
    assert own.cells[place].origin == "measured"
    if column == "PG19 tokens":
        words = others[0]
        assert words.title == TABLE_2.title
        expected = moved.runs[0].evaluations[0].scores.word_perplexity.value
        assert words.rows[0].cells[0] is not None
        assert words.rows[0].cells[0].text == formats.short(expected, 3)
    else:
        assert others == []


def test_formats_of_numbers():
    assert formats.number(None) == "\N{EN DASH}"
    assert formats.number(1234567) == "1,234,567"
    assert formats.number(1234.5, 1) == "1,234.5"
    assert formats.short(7_929_004.2) == "7.93e+06"
    assert formats.signed(0.00123) == "+0.0012"
    assert formats.p_value(0.00012) == "1.2e-04"
    assert (
        formats.command(["/x/block_recurrent/__main__.py", "report", "a b"]) == "python -m block_recurrent report 'a b'"
    )
    assert str(formats.marked_code("<b> `x<y` z")) == "&lt;b&gt; <code>x&lt;y</code> z"
