"""Resumable scoring passes over a split; an interrupted or killed pass resumes to bit-identical losses."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from block_recurrent.data.batching.batches import BatchReader
from block_recurrent.data.batching.schedule import EvaluationSchedule, busy_rows
from block_recurrent.data.store.excerpt import Split
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError
from block_recurrent.evaluation.scorer import Placement, ScoredBatch, ScoringMethod, score, to_host
from block_recurrent.evaluation.token_losses import TokenLosses, scored_starts
from block_recurrent.files import LockedError, is_remote, lock, write_whole
from block_recurrent.progress import ProgressCallback
from block_recurrent.typing import Params

_SECONDS_BETWEEN_SAVES = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Shape of the evaluation batches; it changes the speed, not the result.

    Attributes:
        batch_size: rows of a batch, over all devices.
        segment_length: tokens per row and step; it changes the result of `ModelConfig.depends_on_segments`.
    """

    batch_size: int
    segment_length: int


class ResumablePasses:
    """The scoring passes of one evaluation, saved regularly until its results are written.

    Args:
        folder: output folder of the results. Passes are saved in a hidden folder below it, or in the local temporary
            folder if the results go to an object store.
        identity: everything that determines the losses, JSON-serialisable; passes of another identity are discarded.
        save_seconds: seconds between two saves of a pass.
    """

    def __init__(self, folder: epath.Path, identity: dict[str, Any], save_seconds: float = _SECONDS_BETWEEN_SAVES):
        if is_remote(folder):
            name = hashlib.sha256(folder.as_posix().encode()).hexdigest()[:16]
            self.path = Path(tempfile.gettempdir()) / f"block_recurrent-{name}"
        else:
            self.path = Path(folder) / ".partial"
        self._identity = json.dumps(identity, sort_keys=True)
        self._save_seconds = save_seconds

    @contextlib.contextmanager
    def locked(self) -> Iterator["ResumablePasses"]:
        """Locks the folder of the saved passes, and removes it if the context ends without an exception.

        Raises:
            InputError: the folder cannot be written, or another process is evaluating into it.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock(self.path / "lock", f"process {os.getpid()}"))
            except LockedError as error:
                raise InputError(
                    f"{self.path.parent}: another process is evaluating into this folder ({error})"
                ) from None
            except OSError as error:
                raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None
            yield self
            shutil.rmtree(self.path)

    def run(
        self,
        method: ScoringMethod,
        params: Params,
        store: TokenStore,
        shape: Shape,
        *,
        placement: Placement,
        progress: ProgressCallback = lambda done, total: None,
    ) -> TokenLosses:
        """Scores every token of a split except the first of each document; resumes a saved pass.

        Args:
            method: scoring method.
            params: parameters of the model.
            store: the split.
            shape: shape of the batches; fewer rows are used where some would be idle (`busy_rows`).
            placement: the devices.
            progress: called with the steps done and all steps.

        Returns:
            The token losses, in a memory-mapped file that exists until the context of `locked` ends.
        """
        lengths = store.lengths
        # The segments stay as long as they are: interventions act at their limits.
        shape = dataclasses.replace(shape, batch_size=busy_rows(lengths, shape.batch_size))
        schedule = EvaluationSchedule(lengths, batch_size=shape.batch_size, segment_length=shape.segment_length)
        reader = BatchReader(store, schedule, segment_length=shape.segment_length)
        params = placement.replicate(params)
        state = placement.init(method, params, shape.batch_size)
        starts = scored_starts(lengths)
        saved = _SavedPass(self.path / method.name, f"{self._identity} {placement.padded(shape.batch_size)} {shape}")
        values, first, state = saved.resume(int(starts[-1]), state, placement)
        progress(first, schedule.num_steps)
        last_save = time.monotonic()
        unsaved: ScoredBatch | None = None
        try:
            with reader.prefetch(first, schedule.num_steps) as batches:
                for scored in score(method, params, state, batches, placement, first):
                    _put(values, starts, scored)
                    done, unsaved = scored.step + 1, scored
                    if done == schedule.num_steps or time.monotonic() - last_save >= self._save_seconds:
                        saved.save(values, done, scored.state)
                        last_save, unsaved = time.monotonic(), None
                    progress(done, schedule.num_steps)
        except BaseException as error:
            if unsaved is not None and not isinstance(error, Exception):  # a request to end, such as Ctrl-C
                saved.save(values, unsaved.step + 1, unsaved.state)
            raise
        return TokenLosses(values, starts)


def score_split(
    method: ScoringMethod, params: Params, split: Split, shape: Shape, *, placement: Placement
) -> TokenLosses:
    """Scores every token of a split except the first of each document, in one go and in memory.

    Args:
        method: scoring method.
        params: parameters of the model, on the placement's devices.
        split: the documents; at least one has two tokens.
        shape: shape of the batches; fewer rows are used where some would be idle.
        placement: the devices.
    """
    rows = busy_rows(split.lengths, shape.batch_size)
    schedule = EvaluationSchedule(split.lengths, batch_size=rows, segment_length=shape.segment_length)
    reader = BatchReader(split, schedule, segment_length=shape.segment_length)
    starts = scored_starts(split.lengths)
    values = np.empty(int(starts[-1]), np.float32)
    with reader.prefetch(0, schedule.num_steps) as batches:
        for scored in score(method, params, placement.init(method, params, rows), batches, placement):
            _put(values, starts, scored)
    return TokenLosses(values, starts)


class _SavedPass:
    """A saved pass: `NAME.nats` holds the losses so far, `NAME.npz` the step and the state after it.

    Args:
        path: path of the two files, without the suffix.
        identity: everything that determines the losses.
    """

    def __init__(self, path: Path, identity: str):
        self._values, self._state = path.with_name(f"{path.name}.nats"), path.with_name(f"{path.name}.npz")
        self._identity = hashlib.sha256(identity.encode()).hexdigest()

    def resume(self, size: int, state: Any, placement: Placement) -> tuple[np.memmap, int, Any]:
        """Returns the losses, the next step and the state before it, from the last save or else from the start."""
        try:
            with np.load(self._state, allow_pickle=False) as saved:
                if str(saved["identity"]) == self._identity and self._values.stat().st_size == 4 * size:
                    leaves, structure = jax.tree.flatten(state)
                    stored = [
                        np.frombuffer(saved[f"leaf_{i}"], leaf.dtype).reshape(leaf.shape)
                        for i, leaf in enumerate(leaves)
                    ]
                    state = jax.device_put(jax.tree.unflatten(structure, stored), placement.rows)
                    return np.memmap(self._values, np.float32, "r+"), int(saved["step"]), state
        except (OSError, ValueError, KeyError):
            pass  # not saved yet, or damaged: start again
        self._state.unlink(missing_ok=True)
        return np.memmap(self._values, np.float32, "w+", shape=(size,)), 0, state

    def save(self, values: np.memmap, step: int, state: Any) -> None:
        """Writes the losses first, then the step that declares them complete, in one rename."""
        values.flush()
        leaves: dict[str, Any] = {
            f"leaf_{i}": np.frombuffer(to_host(leaf).tobytes(), np.uint8)
            for i, leaf in enumerate(jax.tree.leaves(state))
        }
        content = io.BytesIO()
        np.savez(content, identity=np.array(self._identity), step=np.array(step), **leaves)
        write_whole(self._state, content.getvalue())


def _put(values: np.ndarray, starts: np.ndarray, scored: ScoredBatch) -> None:
    batch = scored.batch
    for row in np.flatnonzero(batch.document >= 0):
        scores = int(batch.weights[row].sum())  # padding comes after the scored targets
        first = starts[batch.document[row]] + batch.offset[row]
        values[first : first + scores] = scored.losses[row, :scores]
