"""Checkpoints of a run, written with orbax and verified by checksums when they are read."""

import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from block_recurrent.errors import InputError, first_line
from block_recurrent.parallel.processes import all_true, barrier, is_primary
from block_recurrent.training.checksum import checksums
from block_recurrent.training.step import TrainState
from block_recurrent.trees import from_named_leaves, named_leaves

CHECKPOINTS = "checkpoints"  # the folder in a workdir
_DAMAGED = "damaged_checkpoints"
_NOT_STARTED = r"coroutine 'Store\._get_array_metadatas' was never awaited"  # of orbax


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
            like: a state of the same structure, concrete or abstract, with shapes, dtypes and shardings. Arrays that
                were saved with another dtype, under another JAX_ENABLE_X64, are converted.
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
        where, abstract = self._folder / str(step), jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            read, different = self._read(step, abstract)
            if different:
                stored = _with_stored_dtypes(where / "state", abstract)
                if stored is not None:  # saved under another JAX_ENABLE_X64
                    with _wide_types():
                        read, different = self._read(step, stored)
                        read["state"] = jax.tree.map(_with_dtype, read["state"], like)
        except Exception as error:  # the libraries below raise many classes for missing or truncated files
            # Orbax stops at the first array that it cannot read; a coroutine that it has not started yet warns later.
            warnings.filterwarnings("ignore", _NOT_STARTED, RuntimeWarning)
            raise InputError(f"checkpoint {where}: cannot be read: {first_line(error)}") from None
        if different:
            raise InputError(
                f"checkpoint {where}: damaged: {', '.join(different[:3])} ({len(different)} of "
                f"{len(read['about']['checksums'])} arrays) differ from what was written"
            )
        return Restored(step, read["state"], read["about"]["log"])

    def _read(self, step: int, abstract: Any) -> tuple[Any, list[str]]:
        """Returns a checkpoint, and the names of the arrays that have another checksum than the stored one."""
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), about=ocp.args.JsonRestore())
        read: Any = self._manager.restore(step, args=args)
        expected, actual = read["about"]["checksums"], checksums(read["state"])
        read = {"state": read["state"], "about": read["about"]}
        return read, sorted(name for name in expected if expected[name] != actual.get(name))

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
        self._hook, sys.unraisablehook = sys.unraisablehook, self._show_unraisable
        return self

    def _show_unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Shows an exception that nothing can catch, except those of reads that end after a failed restore.

        When one array of a checkpoint cannot be read, orbax closes its event loop; TensorStore still completes the
        reads of the other arrays and would print a traceback for each one.
        """
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            self._hook(unraisable)

    def __exit__(self, *exception: object) -> None:
        """Waits until everything is saved."""
        sys.unraisablehook = self._hook
        with contextlib.suppress(Exception):  # `wait` has reported it
            self._manager.wait_until_finished()
        self._manager.close()


def _with_stored_dtypes(folder: epath.Path, abstract: Any) -> Any | None:
    """Returns the abstract state with the dtypes of the files; None if these are the same."""
    metadata: Any = ocp.StandardCheckpointHandler().metadata(folder)
    leaves = jax.tree.leaves(getattr(metadata, "tree", metadata), is_leaf=lambda leaf: hasattr(leaf, "dtype"))
    dtypes = {leaf.name: jnp.dtype(leaf.dtype) for leaf in leaves if leaf.dtype is not None}

    def stored(name: str, leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.number):  # random keys have a dtype of their own
            return leaf
        dtype = dtypes.get(name.replace("/", "."), leaf.dtype)
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)

    named = named_leaves(abstract)
    changed = {name: stored(name, leaf) for name, leaf in named.items()}
    if all(changed[name].dtype == named[name].dtype for name in named):
        return None
    return from_named_leaves(changed, abstract)


@contextlib.contextmanager
def _wide_types() -> Iterator[None]:
    """Enables 64-bit types, for all threads; without them JAX would read the arrays as 32-bit types."""
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def _with_dtype(leaf: jax.Array, like: Any) -> jax.Array:
    return leaf if leaf.dtype == like.dtype else leaf.astype(like.dtype)
