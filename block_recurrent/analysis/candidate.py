"""A model to be evaluated: a run's checkpoint, with everything that evaluating it needs."""

import dataclasses

from etils import epath

from block_recurrent.analysis.describe import describe_subject
from block_recurrent.analysis.records import Subject
from block_recurrent.checkpoint import Checkpoints
from block_recurrent.config import DataConfig, ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.run_record import read_run
from block_recurrent.saved_run import SavedRun
from block_recurrent.typing import Params

_FOLDER = "checkpoints"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model with its parameters.

    Attributes:
        subject: how results name it.
        home: the folder below which its results go: the run's.
        config: the model.
        data: what it was trained on, and in which shape.
        vocabulary: fingerprint of the vocabulary that it was trained with.
        params: the parameters.
    """

    subject: Subject
    home: epath.Path
    config: ModelConfig
    data: DataConfig
    vocabulary: str
    params: Params


def load_candidate(path: epath.Path, step: int | None = None) -> Candidate:
    """Reads a model.

    Args:
        path: a run's folder, or one of its checkpoints, RUN/checkpoints/STEP.
        step: with a run's folder, which checkpoint; None takes the newest.

    Raises:
        InputError: nothing of the kind is there.
    """
    if path.parent.name == _FOLDER and path.name.isdecimal():
        path, step = path.parent.parent, int(path.name)
    saved = SavedRun.load(path, step)
    checkpoint = path / _FOLDER / str(saved.step)
    subject = describe_subject(path.name, str(checkpoint), saved.step, saved.config.model, saved.params)
    return Candidate(
        subject=subject,
        home=path,
        config=saved.config.model,
        data=saved.config.data,
        vocabulary=saved.vocabulary_fingerprint,
        params=saved.params,
    )


def checkpoint_steps(workdir: epath.Path) -> list[int]:
    """Steps of a run's checkpoints, from the oldest.

    Raises:
        InputError: there is no run, or it has no checkpoint.
    """
    read_run(workdir)
    with Checkpoints(workdir) as checkpoints:
        steps = checkpoints.steps
    if not steps:
        raise InputError(f"{workdir / _FOLDER}: no checkpoint is there yet")
    return steps
