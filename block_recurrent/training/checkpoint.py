"""Checkpoints of a run, written with orbax and verified by checksums when they are read."""

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
    """A checkpoint that was read and verified.

    Attributes:
        step: steps taken.
        state: the training state.
        log: the training log's pending lines, as passed to `save`.
    """

    step: int
    state: TrainState
    log: Any


class Checkpoints:
    """The checkpoints in a workdir. Saving is asynchronous; a checkpoint appears whole or not at all.

    Args:
        workdir: the run's folder; absolute, because orbax requires it.
        keep: number of newest checkpoints to keep; None opens the folder for reading only.
        notify: called with one sentence for each problem and its consequence.
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
        # All processes of a run save and restore together; a reader does not wait for other processes.
        index = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            create=writer,
            save_root_metadata=writer,
            multiprocessing_options=ocp.options.MultiprocessingOptions() if writer else alone,
        )
        return ocp.CheckpointManager(self._folder, options=options)

    @property
    def steps(self) -> list[int]:
        """Steps of the existing checkpoints, in ascending order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, log: Any = None) -> bool:
        """Starts to save the state after `step` steps; training may continue meanwhile.

        Args:
            step: steps taken.
            state: the state; its buffers may be donated afterwards.
            log: JSON that is stored with the state.

        Returns:
            True if the save was started. False if it failed, or if the save before it did: then partial files were
            removed, older checkpoints are kept, and the caller should try again later.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), about=ocp.args.JsonSave({"checksums": checksums(state), "log": log})
        )
        try:
            self._manager.save(step, args=args, force=True)
            self._under_way = saved = True
        except Exception as error:  # tensorstore and orbax wrap the file system's errors
            saved = self._failed(step, error)
        return all_true(saved)

    def failed(self) -> bool:
        """Returns whether the save in progress has failed; with several processes only the next `save` reports it."""
        done = self._under_way and jax.process_count() == 1 and not self._manager.is_saving_in_progress()
        return done and not self.wait()

    def wait(self) -> bool:
        """Waits until everything is saved; returns False if that failed, as `save` does."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            saved, self._under_way = True, False
        except Exception as error:
            saved = self._failed(None, error)
        return all_true(saved)

    def restore_newest(self, like: TrainState) -> Restored | None:
        """Reads the newest good checkpoint.

        A damaged or unreadable checkpoint is reported and the one before it is tried. Once a good one is found, the
        damaged ones are moved to `damaged_checkpoints`; they are never deleted.

        Args:
            like: shapes, dtypes and shardings of the state.

        Returns:
            The checkpoint; None if the run has none.

        Raises:
            InputError: every checkpoint is damaged.
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
                f"{self._folder}: none of the {len(damaged)} checkpoint(s) is good, and no new run is started over "
                f"them; restore one from a copy or choose another --workdir. The newest: {damaged[0][1]}"
            )
        return None

    def restore(self, like: TrainState, step: int | None = None) -> Restored:
        """Reads one checkpoint and verifies its checksums.

        Args:
            like: a state of the same structure, concrete or abstract, with shapes, dtypes and shardings.
            step: the checkpoint's step; None reads the newest.

        Raises:
            InputError: the checkpoint does not exist or is damaged.
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
        except Exception as error:  # the libraries below raise many classes for missing or truncated files
            raise InputError(f"checkpoint {self._folder / str(step)}: cannot be read: {first_line(error)}") from None
        different = sorted(name for name in expected if expected[name] != actual.get(name))
        if different:
            raise InputError(
                f"checkpoint {self._folder / str(step)}: damaged: {', '.join(different[:3])} "
                f"({len(different)} of {len(expected)} arrays) differ from what was written"
            )
        return Restored(step, read["state"], read["about"]["log"])

    def _failed(self, step: int | None, error: Exception) -> bool:
        """Reports a failed save, removes its partial files and opens a new manager."""
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
        with contextlib.suppress(Exception):  # `wait` has reported it
            self._manager.wait_until_finished()
        self._manager.close()
