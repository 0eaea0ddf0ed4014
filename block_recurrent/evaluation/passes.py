"""A pass over a split that can be interrupted, even killed, and goes on to the same numbers, bit for bit."""

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
from block_recurrent.data.batching.schedule import EvaluationSchedule
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
    """How a split is cut into batches; it changes the speed, not the result.

    Attributes:
        batch_size: documents read side by side, over all devices.
        segment_length: tokens of a row and step.
    """

    batch_size: int
    segment_length: int


class ResumablePasses:
    """Where the passes of one evaluation keep what they have done so far, until its results are written.

    Args:
        folder: where the results will go. The work lies in a hidden folder below it, or below the local temporary
            folder where the results go to an object store.
        identity: what decides the numbers, as JSON; work of another identity is thrown away.
        save_seconds: time between two saves of a pass.
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
        """Keeps other processes out; removes the work when everything inside has succeeded.

        Raises:
            InputError: the folder cannot be written, or another process evaluates into it.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock(self.path / "lock", f"process {os.getpid()}"))
            except LockedError as error:
                raise InputError(
                    f"{self.path.parent}: another process is evaluating into this folder: {error}"
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
        """Scores every token of a split but each document's first, or what is left of that.

        Args:
            method: how.
            params: the parameters.
            store: the split.
            shape: of the batches.
            placement: the devices.
            progress: called with (steps done, steps in all).

        Returns:
            The losses, in a memory map below the work folder: valid until `opened` ends.
        """
        lengths = store.lengths
        schedule = EvaluationSchedule(lengths, batch_size=shape.batch_size, segment_length=shape.segment_length)
        reader = BatchReader(store, schedule, segment_length=shape.segment_length)
        params = placement.replicate(params)
        state = placement.init(method, params, shape.batch_size)
        starts = scored_starts(lengths)
        saved = _SavedPass(self.path / method.name, f"{self._identity} {placement.padded(shape.batch_size)} {shape}")
        values, first, state = saved.resume(int(starts[-1]), state, placement)
        progress(first, schedule.num_steps)
        last_save = time.monotonic()
        with reader.prefetch(first, schedule.num_steps) as batches:
            for scored in score(method, params, state, batches, placement, first):
                _put(values, starts, scored)
                done = scored.step + 1
                if done == schedule.num_steps or time.monotonic() - last_save >= self._save_seconds:
                    saved.save(values, done, scored.state)
                    last_save = time.monotonic()
                progress(done, schedule.num_steps)
        return TokenLosses(values, starts)


class _SavedPass:
    """A pass on disk: `NAME.nats`, the losses so far, and `NAME.npz`, the step and the state behind it.

    Args:
        path: without ending.
        identity: what decides the numbers.
    """

    def __init__(self, path: Path, identity: str):
        self._values, self._state = path.with_name(f"{path.name}.nats"), path.with_name(f"{path.name}.npz")
        self._identity = hashlib.sha256(identity.encode()).hexdigest()

    def resume(self, size: int, state: Any, placement: Placement) -> tuple[np.memmap, int, Any]:
        """Losses, the next step, and the state before it: of the last save if there is one, otherwise fresh."""
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
            pass  # nothing there, or torn: start afresh
        self._state.unlink(missing_ok=True)
        return np.memmap(self._values, np.float32, "w+", shape=(size,)), 0, state

    def save(self, values: np.memmap, step: int, state: Any) -> None:
        """Losses first, then, in one move, the step that says that they are there."""
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
        scores = int(batch.weights[row].sum())  # padding lies behind the scored targets
        first = starts[batch.document[row]] + batch.offset[row]
        values[first : first + scores] = scored.losses[row, :scores]
