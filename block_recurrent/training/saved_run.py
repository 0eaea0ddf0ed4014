"""A run read from its workdir: configuration, data facts, parameters and vocabulary."""

import contextlib
import dataclasses
import os
from typing import Any

import jax
from etils import epath

from block_recurrent.config import RunConfig
from block_recurrent.data.recorded_vocabulary import load_recorded_vocabulary
from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.errors import InputError
from block_recurrent.files import check_utf8, resolve
from block_recurrent.interop.safetensors import export_params
from block_recurrent.parallel.placement import Placement
from block_recurrent.training.checkpoint import CHECKPOINTS, Checkpoints
from block_recurrent.training.run_record import initialised_from, read_run
from block_recurrent.training.step import TrainState, abstract_train_state
from block_recurrent.typing import Params


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A checkpoint of a run.

    Attributes:
        config: the run's configuration, with `attention_kernel = "xla"`: what is done with a checkpoint may be done on
            another machine than its training.
        data: facts of the training data, as in `run.json`.
        step: steps taken.
        params: the parameters.
        folder: the run's folder, with a copy of its vocabulary; None for a run without one.
    """

    config: RunConfig
    data: dict[str, Any]
    step: int
    params: Params
    folder: epath.Path | None = None

    @classmethod
    def load(cls, workdir: os.PathLike[str] | str, placement: Placement | None = None) -> "SavedRun":
        """Reads a run, onto one device of this process or divided among the devices of all processes.

        Args:
            workdir: the run's folder, or its `checkpoints/STEP` for a checkpoint other than the newest.
            placement: divides the arrays as in training if its `fsdp` is above 1; then every process calls this.

        Raises:
            InputError: the folder holds no run, or the run has no such checkpoint.
        """
        folder, step = resolve(workdir), None
        if folder.parent.name == CHECKPOINTS and folder.name.isdigit():
            folder, step = folder.parent.parent, int(folder.name)
        check_utf8(folder)
        config, data = read_run(folder)
        with Checkpoints(folder) as checkpoints:
            restored = checkpoints.restore(_on_devices(abstract_train_state(config), placement), step)
        config = dataclasses.replace(config, model=config.model.without_kernels())
        return cls(config, data, restored.step, restored.state.params, folder)

    @property
    def vocabulary_fingerprint(self) -> str:
        """Fingerprint of the training data's vocabulary; all stores of a mixture have the same."""
        return self.data["stores"][0]["vocabulary"]["fingerprint"]

    def vocabulary(self, given: str | None = None) -> Vocabulary:
        """Returns the vocabulary of the training data.

        Args:
            given: the vocabulary's file, checked by its fingerprint; None searches the run's folder, then the path at
                which the data was prepared.

        Raises:
            InputError: it is not found, or the given one is another vocabulary.
        """
        spec, folders = self.data["stores"][0]["vocabulary"]["spec"], () if self.folder is None else (self.folder,)
        return load_recorded_vocabulary(spec, self.vocabulary_fingerprint, given=given, folders=folders)

    def training(self) -> dict[str, Any]:
        """Returns the facts of the training that an export records.

        `segment_length` and `batch_size` are the shape of the steps. `positions` is steps x tokens of a step: an
        upper bound of the trained tokens, because the last segment of a document is padded. `stores` has the corpus
        (absent for earlier runs), source, split, fingerprint and counts of each training store. `init_from` is where
        the first parameters came from.
        """
        shape = self.config.data
        return {
            "segment_length": shape.segment_length,
            "batch_size": shape.batch_size,
            "positions": self.step * self.config.tokens_per_step,
            "stores": [
                {name: store[name] for name in ("corpus", "source", "split", "fingerprint", "counts") if name in store}
                for store in self.data["stores"]
            ],
            "init_from": None if self.folder is None else initialised_from(self.folder),
        }

    def export(self, folder: epath.Path, vocabulary: Vocabulary | None = None, *, control: str | None = None) -> None:
        """Writes the parameters for other tools; see `interop.safetensors.export_params`.

        Args:
            folder: created if it does not exist.
            vocabulary: the run's vocabulary, whose file is copied; None copies the file if it is found.
            control: for an export that is a control of an experiment, what was done to the parameters; the report
                shows it.
        """
        if vocabulary is None:
            with contextlib.suppress(InputError):
                vocabulary = self.vocabulary()
        export_params(
            folder,
            config=self.config.model,
            params=self.params,
            step=self.step,
            vocabulary=self.data["stores"][0]["vocabulary"],
            vocabulary_file=None if vocabulary is None else vocabulary.model,
            trained_on=[store["fingerprint"] for store in self.data["stores"]],
            training=self.training() | ({} if control is None else {"control": control}),
        )


def _on_devices(state: TrainState, placement: Placement | None) -> Any:
    """Returns the shapes of a state with the shardings to read it with."""
    if placement is not None and placement.fsdp > 1:
        return placement.shapes(state)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), state)
