"""Scores of all checkpoints of a run on one split."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from block_recurrent.config import EvaluationConfig
from block_recurrent.errors import InputError
from block_recurrent.evaluation.evaluation import Evaluation, split_folder
from block_recurrent.evaluation.model_under_test import checkpoint_paths, load_model_under_test
from block_recurrent.evaluation.records import read, write
from block_recurrent.evaluation.results import Curve, CurvePoint, Scores
from block_recurrent.parallel.placement import Placement
from block_recurrent.parallel.processes import all_true, is_primary
from block_recurrent.progress import StageCallback


def evaluate_checkpoints(
    workdir: epath.Path,
    data: Mapping[str, Any],
    split: str,
    config: EvaluationConfig,
    *,
    progress: StageCallback,
    placement: Placement | None = None,
) -> tuple[epath.Path, Curve]:
    """Scores every checkpoint that a run has kept, except those that have scores already.

    Args:
        workdir: the run's folder.
        data: fields of `DataConfig` that replace the run's own.
        split: split of the store.
        config: settings of the intervals.
        progress: called with the name of a pass, the steps done and all steps.
        placement: as in `Evaluation`.

    Returns:
        The folder with `curve.json`, and the curve.

    Raises:
        InputError: the run has no checkpoint, the store does not fit the model, or the settings limit the documents.
    """
    if config.max_documents is not None or config.max_tokens is not None:
        raise InputError("a curve over all checkpoints scores the whole split: remove the limit of documents or tokens")
    points: list[CurvePoint] = []
    header: dict[str, Any] = {}
    folder = workdir
    for path in checkpoint_paths(workdir):
        model = load_model_under_test(path, placement)
        assert model.data is not None  # runs record their data; only exports do not
        replaced = dataclasses.replace(model.data, **data)
        folder, step = split_folder(model, replaced, split), int(path.name)

        def named(name: str, done: int, total: int, step: int = step) -> None:
            progress(f"step {step}: {name}", done, total)

        evaluation = Evaluation(model, replaced, split, config, progress=named, placement=placement)
        header = evaluation.header
        scores = _earlier(evaluation)
        if not all_true(scores is not None) or scores is None:
            scores = _score(evaluation)
        points.append(_point(step, scores))
    curve = Curve(**header, points=tuple(points))
    if is_primary():
        write(curve, folder)
    return folder, curve


def _earlier(evaluation: Evaluation) -> Scores | None:
    """Returns earlier scores of the same parameters, tokens and bootstrap settings; None if there are none."""
    found = read(Scores, evaluation.folder)
    if found is None or found.bootstrap != evaluation.bootstrap:
        return None
    same_model = found.subject.fingerprint == evaluation.model.subject.fingerprint
    return found if same_model and found.data.fingerprint == evaluation.store.fingerprint else None


def _score(evaluation: Evaluation) -> Scores:
    with evaluation.scored() as losses:
        return evaluation.write_scores(losses)


def _point(step: int, scores: Scores) -> CurvePoint:
    return CurvePoint(
        step=step,
        bits_per_token=scores.bits_per_token,
        bits_per_byte=scores.bits_per_byte,
        token_perplexity=scores.token_perplexity,
        word_perplexity=scores.word_perplexity,
    )
