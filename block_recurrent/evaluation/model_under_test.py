"""The model under test: a trained model with everything that its evaluation needs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from block_recurrent.config import DataConfig, ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.evaluation.passes import Shape
from block_recurrent.evaluation.provenance import describe_subject
from block_recurrent.evaluation.records import Subject
from block_recurrent.interop.safetensors import CONFIG_FILE, load_export
from block_recurrent.parallel.placement import Placement
from block_recurrent.training.checkpoint import CHECKPOINTS, Checkpoints
from block_recurrent.training.run_record import read_run
from block_recurrent.training.saved_run import SavedRun
from block_recurrent.typing import Params


@dataclasses.dataclass(frozen=True)
class ModelUnderTest:
    """A trained model to evaluate.

    Attributes:
        subject: description of the model in results.
        home: folder of the run or of the export; results go below it.
        config: configuration of the model.
        data: data and batch shape of training; None for an export.
        shape: batch shape of training; None for an export of 0.1.0, which does not record it.
        vocabulary: fingerprint of the vocabulary of training.
        params: parameters of the model.
    """

    subject: Subject
    home: epath.Path
    config: ModelConfig
    data: DataConfig | None
    shape: Shape | None
    vocabulary: str
    params: Params


def load_model_under_test(path: epath.Path, placement: Placement | None = None) -> ModelUnderTest:
    """Loads a model for evaluation; with several processes every process calls this.

    Args:
        path: a run's folder, for its newest checkpoint; a checkpoint, RUN/checkpoints/STEP; or a folder that `export`
            wrote.
        placement: divides the parameters if its `fsdp` is above 1; otherwise they are read onto one device.

    Raises:
        InputError: the path is none of these.
    """
    if (path / CONFIG_FILE).exists():
        export = load_export(path)
        control = export.training.get("control")
        subject = describe_subject(path.name, str(path), export.step, export.model, export.params, control)
        return ModelUnderTest(
            subject, path, export.model, None, _shape(export.training), export.vocabulary["fingerprint"], export.params
        )
    saved = SavedRun.load(path, placement)
    home = path.parent.parent if path.parent.name == CHECKPOINTS else path
    where = str(home / CHECKPOINTS / str(saved.step))
    subject = describe_subject(home.name, where, saved.step, saved.config.model, saved.params)
    data = saved.config.data
    shape = Shape(batch_size=data.batch_size, segment_length=data.segment_length)
    return ModelUnderTest(subject, home, saved.config.model, data, shape, saved.vocabulary_fingerprint, saved.params)


def _shape(training: Mapping[str, Any]) -> Shape | None:
    if "segment_length" not in training:
        return None
    return Shape(batch_size=training["batch_size"], segment_length=training["segment_length"])


def checkpoint_paths(workdir: epath.Path) -> list[epath.Path]:
    """Returns the folders of a run's checkpoints, the oldest first.

    Raises:
        InputError: the folder holds no run, or the run has no checkpoint.
    """
    read_run(workdir)
    with Checkpoints(workdir) as checkpoints:
        steps = checkpoints.steps
    if not steps:
        raise InputError(f"{workdir / CHECKPOINTS}: no checkpoint yet; train the run first")
    return [workdir / CHECKPOINTS / str(step) for step in steps]
