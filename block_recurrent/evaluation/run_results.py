"""Results of runs: reads the evaluations, curves and metrics of runs, and comparisons, from their folders."""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.evaluation.comparison_results import Comparison
from block_recurrent.evaluation.records import DataSet, Subject, read
from block_recurrent.evaluation.results import Ablations, Context, Curve, Diagnostics, OfficialScores, Scores
from block_recurrent.training.metric_writer import read_metrics
from block_recurrent.training.run_record import has_run, read_run

_STEP = re.compile(r"step_(\d+)(_max_\d+_documents)?(_max_\d+_tokens)?")
_SAMPLES = "samples.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitResults:
    """Results of `evaluate` for one model on one split; studies that were not run are None."""

    scores: Scores
    context: Context | None
    ablations: Ablations | None
    diagnostics: Diagnostics | None
    official: OfficialScores | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A text that the model continued: a line of `generate --jsonl RUN/samples.jsonl`.

    Attributes:
        prompt: the given text.
        text: its continuation.
    """

    prompt: str
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResults:
    """Results of a run, of an export, or of the output folder of an evaluation.

    Attributes:
        name: name of the folder, with as many parent folders as make it unique.
        path: path of the folder.
        config: configuration by part and field; only the model for an export.
        trained_on: training data, as in `run.json`; empty for an export.
        metrics: lines of `metrics.jsonl`.
        evaluations: the newest evaluation of every split.
        curves: scores of all checkpoints, one curve per split.
        samples: texts that the model continued; empty without `samples.jsonl` in the folder.
    """

    name: str
    path: epath.Path
    config: dict[str, dict[str, Any]]
    trained_on: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluations: tuple[SplitResults, ...]
    curves: tuple[Curve, ...]
    samples: tuple[Sample, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultSet:
    """Results of several runs, and of comparisons between them.

    Attributes:
        runs: in the order of the paths.
        comparisons: in the order of the paths.
    """

    runs: tuple[RunResults, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def data(self) -> tuple[DataSet, ...]:
        """The distinct splits of all evaluations and comparisons."""
        results = [e.scores.data for run in self.runs for e in run.evaluations]
        results += [comparison.data for comparison in self.comparisons]
        return tuple({about.fingerprint: about for about in results}.values())

    def evaluated(self, about: DataSet) -> Iterator[tuple[RunResults, SplitResults]]:
        """Yields the runs with results on a split, and those results."""
        for run in self.runs:
            for evaluated in run.evaluations:
                if evaluated.scores.data.fingerprint == about.fingerprint:
                    yield run, evaluated

    def name_of(self, subject: Subject) -> str:
        """Returns the name of a model, different from those of all other models.

        It is the name of the model's run if these results include it, with the step if the run has a later evaluation;
        otherwise the subject's own name, with the step or as a path if another model has this name.
        """
        return self._names[subject.fingerprint]

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        """The names of all models, by the fingerprints of their parameters."""
        names: dict[str, str] = {}
        for run in self.runs:
            models = sorted((e.scores.subject for e in run.evaluations), key=lambda found: found.step or 0)
            for model in reversed(models):
                newest = model.fingerprint == models[-1].fingerprint
                names.setdefault(model.fingerprint, run.name if newest else _with_step(model, run.name))
        compared = [m for c in self.comparisons for m in (c.baseline, *(item.subject for item in c.differences))]
        others = {model.fingerprint: model for model in compared if model.fingerprint not in names}
        taken = [*names.values(), *(run.name for run in self.runs)]
        return names | {key: _distinct(model, taken, list(others.values())) for key, model in others.items()}


def _with_step(model: Subject, name: str) -> str:
    return name if model.step is None else f"{name}, step {model.step:,}"


def _distinct(model: Subject, taken: Sequence[str], others: Sequence[Subject]) -> str:
    """Returns the shortest name that neither runs nor the other models have."""
    choices: tuple[Callable[[Subject], str], ...] = (lambda m: m.name, lambda m: _with_step(m, m.name))
    for choose in choices:
        name = choose(model)
        if name not in taken and [choose(other) for other in others].count(name) == 1:
            return name
    return model.path


def read_results(paths: Sequence[epath.Path]) -> ResultSet:
    """Reads all results of several folders.

    Args:
        paths: folders of runs, exports, evaluations (`evaluate --out`) or comparisons (`compare --out`).

    Raises:
        InputError: a folder is none of these, is named twice, or holds a damaged file.
    """
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if list(paths).count(path) > 1)
        raise InputError(f"{twice} is named twice; name each folder once")
    comparisons = {path: found for path in paths if (found := read(Comparison, path)) is not None}
    others = [path for path in paths if path not in comparisons]
    names = _names(others)
    runs = tuple(_read_run(path, name) for path, name in zip(others, names, strict=True))
    return ResultSet(runs=runs, comparisons=tuple(comparisons.values()))


def _read_run(path: epath.Path, name: str) -> RunResults:
    evaluations, curves = tuple(_evaluations(path)), tuple(_curves(path))
    if has_run(path):
        run, data = read_run(path)
        config, trained_on = dataclasses.asdict(run), data
    elif evaluations:
        config, trained_on = {"model": evaluations[0].scores.subject.config}, {}
    else:
        raise InputError(
            f"{path}: nothing to report; name the folder of a run, of an evaluated export, or the output folder of "
            "`evaluate --out` or `compare --out`"
        )
    return RunResults(
        name=name,
        path=path,
        config=config,
        trained_on=trained_on,
        metrics=read_metrics(path),
        evaluations=evaluations,
        curves=curves,
        samples=tuple(_samples(path)),
    )


def _samples(path: epath.Path) -> Iterator[Sample]:
    """Yields the records of `samples.jsonl`, without those of prompts that could not be continued.

    Raises:
        InputError: the file is damaged.
    """
    file = path / _SAMPLES
    # Not `splitlines`, which also splits at line separators inside texts.
    for number, line in enumerate(file.read_text().split("\n") if file.exists() else (), 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            if "text" in record:
                yield Sample(prompt=record["prompt_text"], text=record["text"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{file}, line {number}: not a record of `generate --jsonl`; remove the file") from None


def results_of_step(run: epath.Path, step: int) -> Iterator[tuple[epath.Path, SplitResults]]:
    """Yields the folder and the results of each evaluation of a run's checkpoint.

    Raises:
        InputError: a file is damaged.
    """
    for split in _splits(run):
        folder = split / f"step_{step}"
        if (scores := read(Scores, folder)) is not None:
            yield folder, _evaluated(folder, scores)


def _evaluations(path: epath.Path) -> Iterator[SplitResults]:
    """Yields the evaluation in the folder itself, or else one evaluation of each split of a run.

    It is the newest of the whole split, or the newest of a part if there is no other.
    """
    if (scores := read(Scores, path)) is not None:
        yield _evaluated(path, scores)
        return
    for split in _splits(path):
        found = [(folder, match) for folder in split.iterdir() if (match := _STEP.fullmatch(folder.name))]
        whole_first = [(match[2] is None and match[3] is None, int(match[1]), folder) for folder, match in found]
        for _, _, folder in sorted(whole_first, reverse=True):
            if (scores := read(Scores, folder)) is not None:
                yield _evaluated(folder, scores)
                break


def _evaluated(folder: epath.Path, scores: Scores) -> SplitResults:
    return SplitResults(
        scores=scores,
        context=_same(read(Context, folder), scores),
        ablations=_same(read(Ablations, folder), scores),
        diagnostics=_same(read(Diagnostics, folder), scores),
        official=_same(read(OfficialScores, folder), scores),
    )


def _same(study: Any, scores: Scores) -> Any:
    """Returns a study of the same parameters and tokens, else None: a folder may hold another model's files."""
    if study is None or study.subject.fingerprint != scores.subject.fingerprint:
        return None
    return study if study.data.fingerprint == scores.data.fingerprint else None


def _curves(path: epath.Path) -> Iterator[Curve]:
    for split in _splits(path):
        if (curve := read(Curve, split)) is not None:
            yield curve


def _splits(path: epath.Path) -> list[epath.Path]:
    evaluation = path / "evaluation"
    stores = sorted(evaluation.iterdir()) if evaluation.exists() else []
    return [split for store in stores if store.is_dir() for split in sorted(store.iterdir()) if split.is_dir()]


def _names(paths: Sequence[epath.Path]) -> list[str]:
    """Returns the shortest distinct endings of the paths."""
    for count in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
