"""Checkpoints of a run, through orbax: everything that continuing bit for bit needs."""

from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.train_step import TrainState

_FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints below a workdir. Saving is asynchronous; a checkpoint appears whole or not at all.

    Args:
        workdir: the run's folder; absolute, as orbax wants it.
        keep: how many of the newest stay; None keeps all and makes this a reader.
    """

    def __init__(self, workdir: epath.Path, *, keep: int | None = None):
        self._folder = workdir / _FOLDER
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=keep is not None, read_only=keep is None)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState) -> None:
        """Begins to save the state after `step` steps; training may go on meanwhile."""
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, like: TrainState, step: int | None = None) -> TrainState:
        """Reads a checkpoint.

        Args:
            like: a state of the same structure, concrete or abstract, for shapes, dtypes and shardings.
            step: which one; None takes the newest.

        Raises:
            InputError: there is no such checkpoint.
        """
        step = self.latest_step if step is None else step
        if step is None or step not in self._manager.all_steps():
            have = ", ".join(str(s) for s in self._manager.all_steps()) or "none"
            raise InputError(
                f"{self._folder}: no checkpoint{f' of step {step}' if step is not None else ''}; have: {have}"
            )
        abstract: Any = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        return restored

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        """Waits until everything is saved."""
        self._manager.wait_until_finished()
        self._manager.close()
