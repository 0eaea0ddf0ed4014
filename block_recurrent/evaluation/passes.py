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
from block_recurrent.evaluation.scorer import ScoredBatch, ScoringMethod, score
from block_recurrent.evaluation.token_losses import TokenLosses, scored_starts
from block_recurrent.files import LockedError, is_remote, lock, write_whole
from block_recurrent.parallel.placement import Placement, to_host
from block_recurrent.parallel.processes import agree, from_primary, is_primary, together
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

        With several processes the first one does so.

        Raises:
            InputError: the folder cannot be written, or another evaluation is writing into it.
        """
        with contextlib.ExitStack() as stack:
            with together():
                if is_primary():
                    stack.enter_context(self._lock())
            yield self
            if is_primary():
                shutil.rmtree(self.path)

    def _lock(self) -> contextlib.AbstractContextManager[Any]:
        held = contextlib.ExitStack()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock(self.path / "lock", f"process {os.getpid()}"))
        except LockedError as error:
            raise InputError(f"{self.path.parent}: another process is evaluating into this folder ({error})") from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None
        return held

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
            The token losses, in every process. Those of the first process are a memory-mapped file that exists until
            the context of `locked` ends.
        """
        lengths = store.lengths
        # The segments stay as long as they are: interventions act at their limits.
        shape = dataclasses.replace(shape, batch_size=busy_rows(lengths, shape.batch_size))
        schedule = EvaluationSchedule(lengths, batch_size=shape.batch_size, segment_length=shape.segment_length)
        rows = placement.local_rows(shape.batch_size)
        reader = BatchReader(store, schedule, segment_length=shape.segment_length, rows=rows)
        params = placement.put_params(params)
        state = placement.init(method.init, params, shape.batch_size)
        starts = scored_starts(lengths)
        saved = _SavedPass(self.path / method.name, f"{self._identity} {placement.padded(shape.batch_size)} {shape}")
        values, first, state = saved.resume(int(starts[-1]), state, placement)
        progress(first, schedule.num_steps)
        last_save = time.monotonic()
        unsaved: ScoredBatch | None = None
        try:
            with reader.prefetch(first, schedule.num_steps) as batches:
                for scored in score(method, params, state, batches, placement, shape.batch_size, first):
                    _put(values, starts, schedule, scored)
                    done, unsaved = scored.step + 1, scored
                    if done == schedule.num_steps or agree(time.monotonic() - last_save >= self._save_seconds):
                        saved.save(values, done, scored.state)
                        last_save, unsaved = time.monotonic(), None
                    progress(done, schedule.num_steps)
        except BaseException as error:
            asked = not isinstance(error, Exception)  # to end, such as by Ctrl-C
            # Several processes would have to save the same step together.
            if unsaved is not None and asked and jax.process_count() == 1:
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
    own = placement.local_rows(rows)
    reader = BatchReader(split, schedule, segment_length=shape.segment_length, rows=own)
    starts = scored_starts(split.lengths)
    values = np.empty(int(starts[-1]), np.float32)
    with reader.prefetch(0, schedule.num_steps) as batches:
        for scored in score(method, params, placement.init(method.init, params, rows), batches, placement, rows):
            _put(values, starts, schedule, scored)
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

    def resume(self, size: int, state: Any, placement: Placement) -> tuple[np.ndarray, int, Any]:
        """Returns the losses, the next step and the state before it, from the last save or else from the start.

        With several processes the first one has the files, and sends what they contain to the others.
        """
        found = self._read(size, state) if is_primary() else None
        step = agree(0 if found is None else found[1])
        if found is None and is_primary():
            self._state.unlink(missing_ok=True)
        values: np.ndarray
        if is_primary():
            values = np.memmap(self._values, np.float32, "r+" if step else "w+", shape=(size,))
        else:
            values = np.zeros(size, np.float32)
        if not step:
            return values, 0, state
        if jax.process_count() > 1:
            values[:] = from_primary(values)
        stored = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state) if found is None else found[0]
        return values, step, placement.from_first_process(stored)

    def _read(self, size: int, state: Any) -> tuple[Any, int] | None:
        """Returns the saved state and its step; None if there is none, or it is damaged or of another pass."""
        try:
            with np.load(self._state, allow_pickle=False) as saved:
                if str(saved["identity"]) != self._identity or self._values.stat().st_size != 4 * size:
                    return None
                leaves, structure = jax.tree.flatten(state)
                stored = [
                    np.frombuffer(saved[f"leaf_{i}"], leaf.dtype).reshape(leaf.shape) for i, leaf in enumerate(leaves)
                ]
                return jax.tree.unflatten(structure, stored), int(saved["step"])
        except (OSError, ValueError, KeyError):
            return None

    def save(self, values: np.ndarray, step: int, state: Any) -> None:
        """Writes the losses first, then the step that declares them complete, in one rename."""
        leaves: dict[str, Any] = {
            f"leaf_{i}": np.frombuffer(to_host(leaf).tobytes(), np.uint8)
            for i, leaf in enumerate(jax.tree.leaves(state))
        }
        if not is_primary():
            return
        assert isinstance(values, np.memmap)
        values.flush()
        content = io.BytesIO()
        np.savez(content, identity=np.array(self._identity), step=np.array(step), **leaves)
        write_whole(self._state, content.getvalue())


def _put(values: np.ndarray, starts: np.ndarray, schedule: EvaluationSchedule, scored: ScoredBatch) -> None:
    located = schedule.locate(scored.step)
    for row in np.flatnonzero(located.document >= 0):
        document, offset = located.document[row], located.offset[row]
        first = starts[document] + offset
        scores = min(schedule.segment_length, int(starts[document + 1] - first))  # padding comes after them
        values[first : first + scores] = scored.losses[row, :scores]
