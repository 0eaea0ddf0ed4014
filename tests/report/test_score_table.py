"""Columns of the table of scores: equal numbers are shown once."""

import dataclasses

import pytest

from block_recurrent.evaluation.records import Estimate
from block_recurrent.report.score_table import score_columns


@pytest.mark.parametrize(
    ("token", "character", "titles"),
    [
        (2.0, 2.0, ["Bits per byte = per token = per character"]),
        (2.0, 2.001, ["Bits per byte = per token ≈ per character"]),
        (2.0, 2.1, ["Bits per byte = per token", "Bits per character"]),
        (8.0, 2.0, ["Bits per byte = per character", "Bits per token"]),
        (8.0, 2.1, ["Bits per byte", "Bits per token", "Bits per character"]),
    ],
)
def test_equal_columns_are_one(results, token, character, titles):
    scores = results.runs[0].evaluations[0].scores
    units = {"bits_per_byte": 2.0, "bits_per_token": token, "bits_per_character": character}
    some = dataclasses.replace(scores, **{name: Estimate(value=value) for name, value in units.items()})
    columns = score_columns([some, some])
    assert [column.title for column in columns] == [*titles, "Perplexity per token", "Perplexity per word"]
    assert all(len(column.estimates) == 2 for column in columns)
    other = dataclasses.replace(some, bits_per_token=Estimate(value=3.0))  # one model suffices to tell columns apart
    assert len(score_columns([some, other])) == len(columns) + (token == 2.0)
