"""A run read from its workdir: configuration, data facts, parameters and vocabulary."""

import dataclasses
import os
from typing import Any

import jax
from etils import epath

from block_recurrent.config import RunConfig
from block_recurrent.data.vocabulary import Vocabulary, load_recorded_vocabulary
from block_recurrent.files import resolve
from block_recurrent.interop.safetensors import export_params
from block_recurrent.training.checkpoint import CHECKPOINTS, Checkpoints
from block_recurrent.training.run_record import read_run
from block_recurrent.training.step import abstract_train_state
from block_recurrent.typing import Params


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A checkpoint of a run.

    Attributes:
        config: the run's configuration.
        data: facts of the training data, as in `run.json`.
        step: steps taken.
        params: the parameters.
    """

    config: RunConfig
    data: dict[str, Any]
    step: int
    params: Params

    @classmethod
    def load(cls, workdir: os.PathLike[str] | str) -> "SavedRun":
        """Reads a run, on one device.

        Args:
            workdir: the run's folder, or its `checkpoints/STEP` for a checkpoint other than the newest.

        Raises:
            InputError: the folder holds no run, or the run has no such checkpoint.
        """
        folder, step = resolve(workdir), None
        if folder.parent.name == CHECKPOINTS and folder.name.isdigit():
            folder, step = folder.parent.parent, int(folder.name)
        config, data = read_run(folder)
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract_train_state(config)
        )
        with Checkpoints(folder) as checkpoints:
            restored = checkpoints.restore(like, step)
        return cls(config, data, restored.step, restored.state.params)

    @property
    def vocabulary_fingerprint(self) -> str:
        """Fingerprint of the training data's vocabulary; all stores of a mixture have the same."""
        return self.data["stores"][0]["vocabulary"]["fingerprint"]

    def vocabulary(self) -> Vocabulary:
        """Returns the vocabulary of the training data.

        Raises:
            InputError: it cannot be read, or has changed since.
        """
        return load_recorded_vocabulary(self.data["stores"][0]["vocabulary"]["spec"], self.vocabulary_fingerprint)

    def export(self, folder: epath.Path) -> None:
        """Writes the parameters for other tools; see `interop.safetensors.export_params`."""
        export_params(
            folder,
            config=self.config.model,
            params=self.params,
            step=self.step,
            vocabulary=self.data["stores"][0]["vocabulary"],
            trained_on=[store["fingerprint"] for store in self.data["stores"]],
        )
