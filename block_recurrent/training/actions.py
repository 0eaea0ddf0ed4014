"""Actions that the training loop runs between two steps: evaluation, checkpoints, traces and a user's own."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
from etils import epath
from jax.sharding import Mesh

from block_recurrent.config import RunConfig
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.model.half_lives import constant_half_lives, half_life_metrics
from block_recurrent.parallel.preemption import Preemption
from block_recurrent.parallel.processes import agree, is_primary
from block_recurrent.progress import Progress
from block_recurrent.training.checkpoint import Checkpoints
from block_recurrent.training.evaluator import evaluate
from block_recurrent.training.log import TrainLog
from block_recurrent.training.metric_writer import MetricsWriter
from block_recurrent.training.step import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Result of an action: one line of `metrics.jsonl`, and sentences for the user.

    Attributes:
        group: group of the line, not one of the trainer's own (`train`, `speed`, the name of the held-out split).
        values: numbers and texts by name, as in `MetricsWriter.write`.
        sentences: printed after the step.
    """

    group: str
    values: dict[str, Any]
    sentences: tuple[str, ...] = ()


class Action(Protocol):
    """Something that the training loop does between two steps.

    With several processes every process calls both methods, and `due` must return the same value on all of them.
    """

    def due(self, step: int) -> bool:
        """Returns whether to run after `step` steps. Called once for every step from 0 to the end of the run."""
        ...

    def run(self, step: int, state: TrainState) -> Measured | None:
        """Runs the action.

        Args:
            step: steps taken.
            state: the state after those steps. The next step donates its buffers: copy what must outlive the call.

        Returns:
            Measurements of a user's action, which the trainer writes; None for none.
        """
        ...


class Interrupted(Exception):  # noqa: N818 (a request, not an error)
    """Raised by an action when the run was asked to stop."""


class UserAction:
    """Runs a user's action outside the log's clock, and once for each step.

    Actions run before the checkpoint of their step is saved. A run that continues from a checkpoint therefore does not
    repeat the actions of that step; what they measured is in the lines that it keeps.

    Args:
        action: the user's.
        log: the run's log.
        metrics: receives what the action measured; None on processes that do not write.
        progress: shows the name of the action while it runs.
        notify: called with each sentence of the action.
        restored: step of the checkpoint that the run continues from; None for a new run.
    """

    def __init__(
        self,
        action: Action,
        log: TrainLog,
        *,
        metrics: MetricsWriter | None,
        progress: Progress,
        notify: Callable[[str], None],
        restored: int | None,
    ):
        self._action, self._log, self._restored = action, log, restored
        self._metrics, self._progress, self._notify = metrics, progress, notify

    def due(self, step: int) -> bool:
        """Returns whether the user's action is due and did not run before the restored checkpoint was saved."""
        return step != self._restored and self._action.due(step)

    def run(self, step: int, state: TrainState) -> None:
        """Reads the metrics of the last step, so that it is known to be finite, and runs the user's action."""
        self._log.catch_up()
        self._progress.update(step, f"running {type(self._action).__name__}")
        measured = self._action.run(step, state)
        if measured is not None:
            for sentence in measured.sentences:
                self._notify(f"step {step}: {sentence}")
            if self._metrics is not None:
                self._metrics.write(step, measured.group, measured.values)
        self._log.start_clock()


class EvaluateSplit:
    """Evaluates the held-out split at the start, at the end, and every `TrainConfig.eval_every` steps, once each.

    Args:
        run: the configuration.
        store: the held-out split.
        mesh: the run's devices.
        log: the run's log.
        metrics: receives the results; None on processes that do not write.
        progress: shows how much of the split is evaluated.
        preemption: interrupts an evaluation.
        notify: called with one sentence for each result.
    """

    def __init__(
        self,
        run: RunConfig,
        store: TokenStore,
        mesh: Mesh,
        *,
        log: TrainLog,
        metrics: MetricsWriter | None,
        progress: Progress,
        preemption: Preemption,
        notify: Callable[[str], None],
    ):
        self._run, self._store, self._mesh = run, store, mesh
        self._log, self._metrics, self._progress = log, metrics, progress
        self._preemption, self._notify = preemption, notify
        self._split = run.data.eval_split
        kept = [] if metrics is None else metrics.kept
        self._evaluated = {line["step"] for line in kept if line["group"] == self._split}

    def due(self, step: int) -> bool:
        """Returns whether an evaluation belongs to this step and is still missing in the primary process's metrics."""
        settings = self._run.train
        scheduled = step % settings.eval_every == 0 or step == settings.num_steps
        return scheduled and not agree(int(step in self._evaluated))

    def run(self, step: int, state: TrainState) -> None:
        """Evaluates and writes the result.

        Raises:
            Interrupted: the run was asked to stop before the evaluation was complete.
        """
        self._log.catch_up()
        settings = self._run.train
        max_steps = settings.eval_steps if step else settings.first_eval_steps or settings.eval_steps

        def progress(done: int, total: int) -> None:
            self._progress.update(step, f"evaluating {self._split}: {done}/{total}")
            if self._preemption.requested():
                raise Interrupted

        scores = evaluate(
            self._run.model,
            state.params,
            self._store,
            mesh=self._mesh,
            batch_size=self._run.data.batch_size,
            segment_length=self._run.data.segment_length,
            max_steps=max_steps,
            progress=progress,
        )
        self._notify(f"step {step}: {self._split} {scores}")
        self._evaluated.add(step)
        if self._metrics is not None:
            half_lives = half_life_metrics(constant_half_lives(self._run.model, state.params))
            self._metrics.write(step, self._split, scores.as_dict() | half_lives)
        self._log.start_clock()


class SaveCheckpoint:
    """Saves a checkpoint every `TrainConfig.checkpoint_every` steps and at the end.

    A save that failed is tried again with every line of the log, and once more at the end of the run.

    Args:
        run: the configuration.
        checkpoints: the run's checkpoints.
        log: the run's log; its unwritten steps are saved too.
        first: the step at which the run started or continues; its state needs no checkpoint.
    """

    def __init__(self, run: RunConfig, checkpoints: Checkpoints, log: TrainLog, *, first: int):
        self._settings, self._checkpoints, self._log = run.train, checkpoints, log
        self._last = first  # step of the last state that needs no further attempt before the next step
        self._again = False

    def due(self, step: int) -> bool:
        """Returns whether to save now. Also checks whether the save in progress has failed."""
        self._again |= self._checkpoints.failed()
        settings = self._settings
        scheduled = step % settings.checkpoint_every == 0 or step == settings.num_steps
        return step > self._last and (scheduled or (self._again and step % settings.log_every == 0))

    def run(self, step: int, state: TrainState) -> None:
        """Starts to save; at the end of the run waits for the result and retries once."""
        self._last = step
        saved = self._save(step, state)
        if step == self._settings.num_steps and not (saved and self._checkpoints.wait()):
            saved = self._save(step, state)
        self._again = not saved

    def finish(self, step: int, state: TrainState) -> str:
        """Saves the state if that was not tried yet, and waits.

        Returns:
            The outcome, as part of a message.
        """
        if step > self._last:
            self._save(step, state)
        saved = self._checkpoints.wait()
        newest = self._checkpoints.steps[-1:]
        outcome = f"saved at step {newest[0]}" if newest else "nothing was saved yet"
        return outcome + ("" if saved else "; the last save failed")

    def _save(self, step: int, state: TrainState) -> bool:
        return self._checkpoints.save(step, state, log=self._log.catch_up())


class StopIfInterrupted:
    """Interrupts the run before its next step when it was asked to stop.

    Args:
        preemption: receives the signals.
        num_steps: length of the run; a run that has taken all its steps is completed instead.
    """

    def __init__(self, preemption: Preemption, num_steps: int):
        self._preemption, self._num_steps = preemption, num_steps

    def due(self, step: int) -> bool:
        """Returns whether the run was asked to stop and has steps left."""
        return step < self._num_steps and self._preemption.requested()

    def run(self, step: int, state: TrainState) -> None:
        """Raises `Interrupted`."""
        raise Interrupted


class StartTrace:
    """Starts an xprof trace before the first of the given steps that this process takes.

    Args:
        steps: the steps to trace.
        folder: receives the trace.
    """

    def __init__(self, steps: range, folder: epath.Path):
        self.steps, self.folder = steps, folder
        self.traced_from: int | None = None

    def due(self, step: int) -> bool:
        """Returns whether the primary process is about to take one of the steps and does not trace yet."""
        return is_primary() and step in self.steps and self.traced_from is None

    def run(self, step: int, state: TrainState) -> None:
        """Starts the trace, of the devices and of XLA's threads.

        Python's functions are not traced: jaxlib follows them in all threads at once, also in those of a checkpoint
        that is being saved. Runs have crashed when such a trace ended, and the file takes seconds to write.
        """
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        jax.profiler.start_trace(str(self.folder), profiler_options=options)
        self.traced_from = step


class StopTrace:
    """Stops the trace after the last of its steps.

    Args:
        start: the action that starts the trace.
        log: the run's log; reading its metrics waits for the last step.
        notify: called with a sentence that names the folder.
    """

    def __init__(self, start: StartTrace, log: TrainLog, notify: Callable[[str], None]):
        self._start, self._log, self._notify = start, log, notify

    def due(self, step: int) -> bool:
        """Returns whether a trace is running and the next step is not part of it."""
        return self._start.traced_from is not None and step not in self._start.steps

    def run(self, step: int, state: TrainState) -> None:
        """Stops the trace."""
        self._log.catch_up()
        jax.profiler.stop_trace()
        self._notify(f"trace of steps {self._start.traced_from} to {step - 1} in {self._start.folder}")
        self._start.traced_from = None
