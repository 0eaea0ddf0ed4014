"""Checkpoints of a run, through orbax: everything that continuing bit for bit needs, checked when it is read."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from block_recurrent.errors import InputError, first_line
from block_recurrent.parallel.processes import all_true, barrier, is_primary
from block_recurrent.training.checksum import checksums
from block_recurrent.training.step import TrainState

CHECKPOINTS = "checkpoints"  # the folder in a workdir
_DAMAGED = "damaged_checkpoints"


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint that was read and is as it was written.

    Attributes:
        step: steps taken.
        state: the training state.
        log: what the training log had not written yet, as it was given to `save`.
    """

    step: int
    state: TrainState
    log: Any


class Checkpoints:
    """The checkpoints below a workdir. Saving is asynchronous; a checkpoint appears whole or not at all.

    Args:
        workdir: the run's folder; absolute, as orbax wants it.
        keep: how many of the newest stay; None keeps all and makes this a reader.
        notify: called with a sentence: what went wrong and what is done about it.
    """

    def __init__(
        self, workdir: epath.Path, *, keep: int | None = None, notify: Callable[[str], None] = lambda message: None
    ):
        self._folder = workdir / CHECKPOINTS
        self._damaged = workdir / _DAMAGED
        self._keep = keep
        self._notify = notify
        self._under_way = False
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        writer = self._keep is not None
        # A run saves and restores with all its processes together; a reader reads for itself, whoever else reads.
        me = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            create=writer,
            save_root_metadata=writer,
            multiprocessing_options=ocp.options.MultiprocessingOptions() if writer else alone,
        )
        return ocp.CheckpointManager(self._folder, options=options)

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, log: Any = None) -> bool:
        """Begins to save the state after `step` steps; training may go on meanwhile.

        Args:
            step: steps taken.
            state: what to save; the caller may donate its buffers afterwards.
            log: JSON kept beside it.

        Returns:
            False if it cannot be written, or if the save before this one could not: what was half-written is removed,
            older checkpoints stay, and the caller tries again later.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), about=ocp.args.JsonSave({"checksums": checksums(state), "log": log})
        )
        try:
            self._manager.save(step, args=args, force=True)
            self._under_way = saved = True
        except Exception as error:  # tensorstore and orbax wrap what the file system says
            saved = self._failed(step, error)
        return all_true(saved)

    def failed(self) -> bool:
        """Whether the save that was under way has ended badly by now. Several processes learn it at the next save."""
        done = self._under_way and jax.process_count() == 1 and not self._manager.is_saving_in_progress()
        return done and not self.wait()

    def wait(self) -> bool:
        """Waits until everything is saved; False if that failed, as in `save`."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            saved, self._under_way = True, False
        except Exception as error:
            saved = self._failed(None, error)
        return all_true(saved)

    def restore_newest(self, like: TrainState) -> Restored | None:
        """Reads the newest checkpoint that is good.

        One that cannot be read, or is not what was written, is reported and the one before it is taken; once a good one
        is found, the damaged ones are moved to `damaged_checkpoints`, never deleted.

        Args:
            like: shapes, dtypes and shardings.

        Returns:
            The checkpoint; None if the run has not saved any yet.

        Raises:
            InputError: there are checkpoints, and none is good.
        """
        damaged: list[tuple[int, str]] = []
        for step in reversed(self.steps):
            try:
                restored = self.restore(like, step)
            except InputError as error:
                damaged.append((step, str(error)))
                self._notify(str(error))
                continue
            if damaged and self._keep is not None:
                self._set_aside([step for step, _ in damaged])
            return restored
        if damaged:
            raise InputError(
                f"{self._folder}: none of the {len(damaged)} checkpoint(s) is good, and nothing is begun anew over "
                f"them. The newest: {damaged[0][1]}"
            )
        return None

    def restore(self, like: TrainState, step: int | None = None) -> Restored:
        """Reads one checkpoint and compares it with its checksums.

        Args:
            like: a state of the same structure, concrete or abstract, for shapes, dtypes and shardings.
            step: which one; None takes the newest.

        Raises:
            InputError: there is no such checkpoint, or it is damaged.
        """
        if step is None and self.steps:
            step = self.steps[-1]
        if step not in self.steps:
            have = ", ".join(map(str, self.steps)) or "none"
            raise InputError(f"{self._folder}: no checkpoint{f' of step {step}' if step else ''}; have: {have}")
        assert step is not None
        abstract: Any = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), about=ocp.args.JsonRestore())
        try:
            read: Any = self._manager.restore(step, args=args)
            expected, actual = read["about"]["checksums"], checksums(read["state"])
        except Exception as error:  # whatever the layers below say of missing or cut files
            raise InputError(f"checkpoint {self._folder / str(step)}: cannot be read: {first_line(error)}") from None
        different = sorted(name for name in expected if expected[name] != actual.get(name))
        if different:
            raise InputError(
                f"checkpoint {self._folder / str(step)}: damaged: {', '.join(different[:3])} "
                f"({len(different)} of {len(expected)} arrays) are not what was written"
            )
        return Restored(step, read["state"], read["about"]["log"])

    def _failed(self, step: int | None, error: Exception) -> bool:
        """Reports, removes what is half-written, and starts over with a fresh manager."""
        self._under_way = False
        what = "the last checkpoint" if step is None else f"checkpoint of step {step} or the one before"
        with contextlib.suppress(Exception):
            self._manager.close()
        if is_primary():
            for path in self._folder.glob("*.orbax-checkpoint-tmp*"):
                with contextlib.suppress(OSError):
                    path.rmtree()
        self._manager = self._open()
        kept = ", ".join(map(str, self.steps)) or "none"
        self._notify(f"saving failed ({what}): {first_line(error)}; kept: {kept}; will try again")
        return False

    def _set_aside(self, steps: list[int]) -> None:
        barrier(f"damaged checkpoints {steps} of {self._folder} to be set aside")
        if is_primary():
            self._damaged.mkdir(parents=True, exist_ok=True)
            for step in steps:
                target, number = self._damaged / str(step), 1
                while target.exists():
                    target, number = self._damaged / f"{step}.{number}", number + 1
                (self._folder / str(step)).rename(target)
                self._notify(f"checkpoint of step {step} moved to {target}")
        barrier(f"damaged checkpoints {steps} of {self._folder} set aside")
        self._manager.reload()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        """Waits until everything is saved."""
        with contextlib.suppress(Exception):  # `wait` has told
            self._manager.wait_until_finished()
        self._manager.close()
