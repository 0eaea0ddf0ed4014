"""Table of the runs' configurations."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from block_recurrent.evaluation.run_results import RunResults
from block_recurrent.report.formats import ABSENT


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of the configuration in all runs.

    Attributes:
        name: such as `model.num_layers`.
        values: value in each run; `ABSENT` if the run does not record it.
        differs: True if two runs have different values.
    """

    name: str
    values: tuple[str, ...]
    differs: bool


def settings(runs: Sequence[RunResults]) -> list[Setting]:
    """Returns all fields, in the order of the configuration classes."""
    leaves = [dict(_leaves(run.config)) for run in runs]
    names = dict.fromkeys(name for run in leaves for name in run)
    found = [(name, tuple(repr(run[name]) if name in run else ABSENT for run in leaves)) for name in names]
    return [Setting(name, values, len(set(values) - {ABSENT}) > 1) for name, values in found]


def _leaves(config: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    for part, fields in config.items():
        for field, value in fields.items():
            yield f"{part}.{field}", tuple(value) if isinstance(value, list) else value
