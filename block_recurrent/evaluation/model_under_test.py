"""A model to be evaluated, with everything that evaluating it needs."""

import dataclasses

from etils import epath

from block_recurrent.config import DataConfig, ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.evaluation.provenance import describe_subject
from block_recurrent.evaluation.records import Subject
from block_recurrent.interop.safetensors import CONFIG_FILE, load_export
from block_recurrent.training.checkpoint import CHECKPOINTS, Checkpoints
from block_recurrent.training.run_record import read_run
from block_recurrent.training.saved_run import SavedRun
from block_recurrent.typing import Params


@dataclasses.dataclass(frozen=True)
class ModelUnderTest:
    """A model with its parameters.

    Attributes:
        subject: how results name it.
        home: the folder below which its results go: the run's, or that of an export.
        config: the model.
        data: what it was trained on, and in which shape; None for an export, which does not tell.
        vocabulary: fingerprint of the vocabulary that it was trained with.
        params: the parameters.
    """

    subject: Subject
    home: epath.Path
    config: ModelConfig
    data: DataConfig | None
    vocabulary: str
    params: Params


def load_model_under_test(path: epath.Path) -> ModelUnderTest:
    """Reads a model.

    Args:
        path: a run's folder, for its newest checkpoint; one of its checkpoints, RUN/checkpoints/STEP; or a folder that
            `export` wrote.

    Raises:
        InputError: nothing of the kind is there.
    """
    if (path / CONFIG_FILE).exists():
        export = load_export(path)
        subject = describe_subject(path.name, str(path), export.step, export.model, export.params)
        return ModelUnderTest(subject, path, export.model, None, export.vocabulary["fingerprint"], export.params)
    saved = SavedRun.load(path)
    home = path.parent.parent if path.parent.name == CHECKPOINTS else path
    where = str(home / CHECKPOINTS / str(saved.step))
    subject = describe_subject(home.name, where, saved.step, saved.config.model, saved.params)
    return ModelUnderTest(
        subject, home, saved.config.model, saved.config.data, saved.vocabulary_fingerprint, saved.params
    )


def checkpoint_paths(workdir: epath.Path) -> list[epath.Path]:
    """A run's checkpoints, from the oldest.

    Raises:
        InputError: there is no run, or it has no checkpoint.
    """
    read_run(workdir)
    with Checkpoints(workdir) as checkpoints:
        steps = checkpoints.steps
    if not steps:
        raise InputError(f"{workdir / CHECKPOINTS}: no checkpoint is there yet")
    return [workdir / CHECKPOINTS / str(step) for step in steps]
