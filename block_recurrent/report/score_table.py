"""The table of scores: its columns, each shown once."""

import dataclasses
from collections.abc import Callable, Sequence

from block_recurrent.evaluation.records import Estimate
from block_recurrent.evaluation.results import Scores
from block_recurrent.report.formats import number, perplexity

_NEARLY_EQUAL = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreColumn:
    """A column.

    Attributes:
        title: heading; names all units whose numbers are the same.
        estimates: one per model.
        format: formats a number of the column.
    """

    title: str
    estimates: tuple[Estimate, ...]
    format: Callable[[float], str]


def score_columns(scores: Sequence[Scores]) -> list[ScoreColumn]:
    """Returns the columns for some models.

    Bits per byte, per token and per character share a column where they are equal (a vocabulary of bytes) or differ by
    less than 0.1 % (text that is nearly all ASCII).
    """
    units = {
        "byte": [item.bits_per_byte for item in scores],
        "token": [item.bits_per_token for item in scores],
        "character": [item.bits_per_character for item in scores],
    }
    titles: dict[str, str] = {}
    for unit, estimates in units.items():
        first = next((other for other in titles if _difference(units[other], estimates) < _NEARLY_EQUAL), None)
        if first is None:
            titles[unit] = f"Bits per {unit}"
        else:
            titles[first] += f" {'≈' if _difference(units[first], estimates) else '='} per {unit}"
    columns = [ScoreColumn(title=title, estimates=tuple(units[unit]), format=number) for unit, title in titles.items()]
    for unit in ("token", "word"):
        found = tuple(getattr(item, f"{unit}_perplexity") for item in scores)
        columns.append(ScoreColumn(title=f"Perplexity per {unit}", estimates=found, format=perplexity))
    return columns


def _difference(some: Sequence[Estimate], others: Sequence[Estimate]) -> float:
    """Returns the largest relative difference of the values."""
    return max((abs(a.value - b.value) / max(a.value, b.value) for a, b in zip(some, others, strict=True)), default=0.0)
