"""Reproduction of the paper's tables: finds the runs of each cell, their results, and their differences from the paper.

Runs are in folders by experiment, data set and seed, such as `RUNS/table1/rec_fixed_skip/pg19_tokens/seed_0`; one run
serves every table with its experiment.
"""

import dataclasses
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from etils import epath

from block_recurrent.config import RunConfig, fields_that_may_differ
from block_recurrent.evaluation.run_results import RunResults, SplitResults, read_results
from block_recurrent.paper.tables import Column, PaperCell, PaperRow, PaperTable
from block_recurrent.training.run_record import has_run, read_run

# (experiment file, data set) -> the configuration of the paper's run.
Expected = Callable[[str, str], RunConfig]
_STEP_TIME_BASELINE = "gin/table1/slide_13l.gin"
# Other fields than those of the model and the data that the paper's runs have in common.
_TRAINING_FIELDS = {
    "optimizer": ("gate_rate_multiplier",),
    "train": ("num_steps", "backprop_segments", "state_passing"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduced:
    """Results of our runs for one cell.

    Attributes:
        values: one per finished seed, in the unit of the column.
        labels: differences from the paper's runs, such as a stand-in corpus, other data, or altered fields.
    """

    values: tuple[float, ...]
    labels: tuple[str, ...]

    @property
    def value(self) -> float:
        """Mean over seeds."""
        return statistics.mean(self.values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedCell:
    """The paper's number and ours; either may be missing."""

    paper: PaperCell | None
    ours: Reproduced | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """A row of the paper, with the paper's and our number for each column."""

    row: PaperRow
    cells: Mapping[str, ComparedCell]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedTable:
    """A table of the paper, with the results of our runs."""

    table: PaperTable
    rows: tuple[ComparedRow, ...]


def run_folder(runs: epath.Path, gin_file: str, data: str, seed: int) -> epath.Path:
    """Returns the folder of the run of an experiment on a data set.

    Args:
        runs: folder of all runs.
        gin_file: experiment file, such as `gin/table1/rec_fixed_skip.gin`.
        data: data set, such as `pg19_tokens`.
        seed: seed of the parameters, of dropout and of the order of the data.
    """
    return _experiment_folder(runs, gin_file) / data / f"seed_{seed}"


def compare_with_paper(table: PaperTable, runs: epath.Path, expected: Expected) -> ComparedTable:
    """Fills a table of the paper with the results of runs.

    Args:
        table: a table of `paper.tables`.
        runs: folder of all runs; cells without a run stay empty.
        expected: (experiment file, data set) -> configuration of the paper's run; runs that differ are labelled.

    Raises:
        InputError: a run's record or evaluation is damaged.
    """
    found = _Runs(runs, expected)
    return ComparedTable(table=table, rows=tuple(_compare_row(row, table, found) for row in table.rows))


def _compare_row(row: PaperRow, table: PaperTable, found: "_Runs") -> ComparedRow:
    cells = {
        column.name: ComparedCell(
            paper=row.cells.get(column.name),
            ours=None if row.gin_file is None else _fill(row, row.gin_file, column, found),
        )
        for column in table.columns
    }
    return ComparedRow(row=row, cells=cells)


def _fill(row: PaperRow, gin_file: str, column: Column, found: "_Runs") -> Reproduced | None:
    if column.name == "step_time":
        return _step_time(gin_file, found)
    if column.data is None:
        return _millions_of_parameters(gin_file, found)
    finished = [(run, _score(run, row, column)) for run in found.of(gin_file, column.data)]
    values = [(run, score) for run, score in finished if score is not None]
    if not values:
        return None
    labels = [
        label for run, (_, labels) in values for label in (*found.differences(run, gin_file, column.data), *labels)
    ]
    return Reproduced(values=tuple(value for _, (value, _) in values), labels=tuple(dict.fromkeys(labels)))


def _score(run: RunResults, row: PaperRow, column: Column) -> tuple[float, tuple[str, ...]] | None:
    """Returns a run's number in a column, and labels for its data and training; None without a result."""
    evaluated = next((e for e in run.evaluations if e.scores.data.split == column.split), None)
    value = None if evaluated is None else _measured(evaluated, row.ablation, column.name)
    if evaluated is None or value is None:
        return None
    about, labels = evaluated.scores.data, []
    if about.paper_column != column.paper_column:
        labels.append(f"other data: {about.label}")
    elif column.stand_in:
        labels.append("stand-in corpus")
    steps = run.config["train"]["num_steps"]
    if evaluated.scores.subject.step != steps:
        labels.append(f"unfinished: step {evaluated.scores.subject.step} of {steps}")
    return value, tuple(labels)


def _measured(evaluated: SplitResults, ablation: str | None, name: str) -> float | None:
    scores = evaluated.scores
    if ablation is not None:
        study = () if evaluated.ablations is None else evaluated.ablations.ablations
        return next((result.bits_per_token.value for result in study if result.name == ablation), None)
    if name == "word_perplexity":
        return scores.word_perplexity.value
    if name == "token_perplexity":
        return scores.token_perplexity.value
    return scores.bits_per_token.value


def _step_time(gin_file: str, found: "_Runs") -> Reproduced | None:
    """Returns the step time relative to the baseline's, on the first data set with runs of both."""
    for data in found.data_sets(gin_file):
        ours = [seconds for run in found.of(gin_file, data) if (seconds := _seconds_per_step(run)) is not None]
        theirs = [s for run in found.of(_STEP_TIME_BASELINE, data) if (s := _seconds_per_step(run)) is not None]
        if ours and theirs:
            baseline = statistics.mean(theirs)
            return Reproduced(values=tuple(s / baseline for s in ours), labels=(f"on {data}",))
    return None


def _seconds_per_step(run: RunResults) -> float | None:
    """Returns the median of the log, without its first line, which includes compilation."""
    lines = [line["seconds_per_step"] for line in run.metrics if line["group"] == "speed"][1:]
    return statistics.median(lines) if lines else None


def _millions_of_parameters(gin_file: str, found: "_Runs") -> Reproduced | None:
    for data in found.data_sets(gin_file):
        for run in found.of(gin_file, data):
            for evaluated in run.evaluations:
                config, size = run.config["model"], evaluated.scores.subject.parameters
                millions = (size - config["vocab_size"] * config["embed_dim"]) / 1e6
                return Reproduced(values=(millions,), labels=found.differences(run, gin_file, data))
    return None


class _Runs:
    """The runs below a folder, each read once."""

    def __init__(self, folder: epath.Path, expected: Expected):
        self._folder, self._expected = folder, expected
        self._read: dict[epath.Path, RunResults] = {}

    def data_sets(self, gin_file: str) -> list[str]:
        """Returns the data sets that an experiment has runs of."""
        folder = _experiment_folder(self._folder, gin_file)
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []

    def of(self, gin_file: str, data: str) -> Iterator[RunResults]:
        """Yields an experiment's runs on a data set, by seed."""
        folder = _experiment_folder(self._folder, gin_file) / data
        for path in sorted(folder.glob("seed_*")) if folder.exists() else ():
            if has_run(path):
                if path not in self._read:
                    self._read[path] = read_results([path]).runs[0]
                yield self._read[path]

    def differences(self, run: RunResults, gin_file: str, data: str) -> tuple[str, ...]:
        """Returns labels for the learning-rate schedule and for all model, data and length fields that differ."""
        ours, _ = read_run(run.path)
        paper = self._expected(gin_file, data)
        altered = [
            *_altered(ours.model, paper.model, ignored={*fields_that_may_differ("resume"), "recurrent_layers"}),
            *_altered(ours.data, paper.data, ignored={"store", "seed", "eval_split", "train_split"}),
        ]
        if ours.model.recurrent_indices != paper.model.recurrent_indices:
            altered.append(f"recurrent_layers = {ours.model.recurrent_layers} ({paper.model.recurrent_layers})")
        for part, names in _TRAINING_FIELDS.items():
            altered += _altered(getattr(ours, part), getattr(paper, part), only=names)
        return (f"schedule {ours.optimizer.schedule}", *([f"altered: {', '.join(altered)}"] if altered else []))


def _altered(
    ours: Any, paper: Any, *, ignored: Collection[str] = (), only: Collection[str] | None = None
) -> Iterator[str]:
    names = [field.name for field in dataclasses.fields(paper)] if only is None else only
    for name in names:
        here, there = getattr(ours, name), getattr(paper, name)
        if name not in ignored and here != there:
            yield f"{name} = {here} ({there})"


def _experiment_folder(runs: epath.Path, gin_file: str) -> epath.Path:
    return runs / gin_file.removeprefix("gin/").removesuffix(".gin")
