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


def test_other_data_is_not_among_the_paper_s_numbers(results):
    (table,) = tables_with_runs(results)
    assert not table.has_runs
    assert [title for title, _ in table.columns] == [column.title for column in TABLE_1.columns]
    assert [row.name for row in table.rows] == [row.name for row in TABLE_1.rows]
    assert all(row.run is None for row in table.rows)


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
    assert table.has_runs
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
        assert words.rows[0].cells[0].text == formats.perplexity(expected)
    else:
        assert others == []


def test_formats_of_numbers():
    assert formats.number(None) == "\N{EN DASH}"
    assert formats.number(1234567) == "1,234,567"
    assert formats.number(1234.5, 1) == "1,234.5"
    assert [formats.perplexity(value) for value in (1.0, 28.456, 1234.5, 36660.2)] == [
        "1.000",
        "28.46",
        "1,234",
        "36,660",
    ]
    assert formats.perplexity(7_929_004.2) == "7.93\N{MULTIPLICATION SIGN}10\N{SUPERSCRIPT SIX}"
    assert formats.perplexity(1e304).endswith("10\N{SUPERSCRIPT THREE}\N{SUPERSCRIPT ZERO}\N{SUPERSCRIPT FOUR}")
    assert formats.signed(0.00123) == "+0.0012"
    assert [formats.p_value(value) for value in (None, 1.0, 0.03125, 0.0001)] == ["\N{EN DASH}", "1", "0.031", "0.0001"]
    assert formats.p_value_with_reach(0.25, 3) == "p = 0.25; the smallest possible with 3 documents is 0.25"
    assert formats.p_value_with_reach(0.0002, 26) == "p = 0.0002; the smallest possible with 26 documents is 0.0001"
    assert (
        formats.command(["/x/block_recurrent/__main__.py", "report", "a b"]) == "python -m block_recurrent report 'a b'"
    )
    assert str(formats.marked_code("<b> `x<y` z")) == "&lt;b&gt; <code>x&lt;y</code> z"
