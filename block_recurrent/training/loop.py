"""The training loop."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from rich.console import Console

from block_recurrent.config import RunConfig
from block_recurrent.data.batching.batches import read_step
from block_recurrent.data.batching.prefetch import Prefetcher
from block_recurrent.data.batching.training_data import TrainingData, open_training
from block_recurrent.data.recorded_vocabulary import keep_vocabulary
from block_recurrent.data.store.open_split import open_split
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.errors import PreemptedError
from block_recurrent.files import check_utf8, write_whole
from block_recurrent.model.language_model import count_params
from block_recurrent.parallel.compiler_options import compiler_options
from block_recurrent.parallel.preemption import Preemption
from block_recurrent.parallel.processes import barrier, is_primary, together
from block_recurrent.parallel.sharding import check_rows, local_rows, make_mesh, shardings, with_shardings
from block_recurrent.progress import Progress
from block_recurrent.training.actions import (
    Action,
    EvaluateSplit,
    Interrupted,
    SaveCheckpoint,
    StartTrace,
    StopIfInterrupted,
    StopTrace,
    UserAction,
)
from block_recurrent.training.checkpoint import CHECKPOINTS, Checkpoints, Restored
from block_recurrent.training.evaluator import to_device
from block_recurrent.training.init_from import load_initial_params
from block_recurrent.training.log import TrainLog
from block_recurrent.training.metric_writer import MetricsWriter, read_metrics
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.run_record import check_record, make_record, write_record
from block_recurrent.training.run_vocabulary import find_vocabulary
from block_recurrent.training.step import (
    SegmentBatch,
    StepMetrics,
    TrainState,
    abstract_train_state,
    init_train_state,
)
from block_recurrent.training.step_program import compile_train_step, compiled_in_background, jit_train_step
from block_recurrent.training.tracker import MakeTracker, WriteLine, tracked
from block_recurrent.training.watchdog import Watchdog
from block_recurrent.training.workdir_lock import hold_workdir
from block_recurrent.typing import Params

TakeStep: TypeAlias = Callable[[TrainState, SegmentBatch], tuple[TrainState, StepMetrics]]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """First and last evaluation of a finished run.

    Attributes:
        first_evaluation: line of `metrics.jsonl` before the first step.
        last_evaluation: line of `metrics.jsonl` after the last step.
    """

    first_evaluation: dict[str, Any]
    last_evaluation: dict[str, Any]


class Loop:
    """Takes the steps of a run, and runs actions between them.

    Args:
        steps: the steps to take, counted from 0; empty if the run is complete.
        take_step: takes one step, from `compiled_in_background`.
        batches: one batch for each of `steps`, on the devices.
        actions: run before each step and after the last one, in this order.
        stop: called with the step and the state when an action raises `Interrupted`; raises the run's error.
        log: reads the metrics.
        progress: shows the steps taken.
        watchdog: reports a step that does not end.
    """

    def __init__(
        self,
        steps: range,
        *,
        take_step: TakeStep,
        batches: Iterator[SegmentBatch],
        actions: Sequence[Action],
        stop: Callable[[int, TrainState], NoReturn],
        log: TrainLog,
        progress: Progress,
        watchdog: Watchdog,
    ):
        self._steps, self._take_step, self._batches = steps, take_step, batches
        self._actions, self._stop = actions, stop
        self._log, self._progress, self._watchdog = log, progress, watchdog

    def run(self, state: TrainState) -> None:
        """Trains from a state to the end of the run.

        The order in each step: run the actions (evaluate, save, stop if interrupted), wait for the next batch,
        dispatch the step, and read the metrics of the step before while the devices compute this one.
        """
        for step in self._steps:
            self._act(step, state)
            batch = self._next_batch()
            self._watchdog.beat(step)
            with jax.transfer_guard("disallow"):  # everything that a step needs is on the devices already
                state, metrics = self._take_step(state, batch)
            self._log.add(step + 1, metrics)
            self._progress.update(step, self._log.latest)
        self._log.catch_up()
        self._act(self._steps.stop, state)

    def _act(self, step: int, state: TrainState) -> None:
        try:
            for action in self._actions:
                if action.due(step):
                    with self._watchdog.resting():
                        action.run(step, state)
        except Interrupted:
            with self._watchdog.resting():
                self._stop(step, state)

    def _next_batch(self) -> SegmentBatch:
        started = time.perf_counter()
        batch = next(self._batches)
        self._log.waited_for_data(time.perf_counter() - started)
        return batch


def train(
    run: RunConfig,
    workdir: epath.Path,
    console: Console,
    *,
    config_gin: str = "",
    init_from: epath.Path | None = None,
    profile: range = range(0),
    actions: Sequence[Action] = (),
    vocabulary: str | None = None,
    tracker: MakeTracker | None = None,
) -> TrainResult:
    """Trains from the newest checkpoint of the workdir, or from the start, to the end of the run.

    A run that was interrupted, even killed, continues from its newest good checkpoint and computes what it would have
    computed uninterrupted, bit for bit on the same machine and mesh. With several processes all of them call this.

    Args:
        run: the configuration.
        workdir: the run's folder, the same for all processes; created if it does not exist.
        console: shows progress; only the primary process prints.
        config_gin: the experiment's gin configuration, written into the workdir as `config.gin`.
        init_from: source of a new run's parameters (see `load_initial_params`); None initialises them at random.
        profile: steps to trace, into `profile/`.
        actions: further actions to run between steps. They run before the evaluation and the checkpoint of their step.
        vocabulary: file of the data's vocabulary, which the workdir keeps; None searches for it.
        tracker: creates a tracker, on the primary process, which also receives the metrics; None for none.

    Raises:
        InputError: the data is missing or does not fit the model or the mesh, the workdir holds another run or is in
            use, or none of its checkpoints is good.
        NonFiniteError: a loss or gradient was not finite and `TrainConfig.nonfinite` is `stop`.
        PreemptedError: the run was asked to stop; everything is saved.
        MissingProcessError: another process is missing.
    """
    check_utf8(workdir)
    mesh = make_mesh(run.mesh)
    check_rows(mesh, run.data.batch_size, run.train.accumulate_steps)
    run.model.check_platform(mesh.devices.flat[0].platform)
    training = open_training(run.data, vocab_size=run.model.vocab_size)
    fingerprint = training.stores[0].vocabulary.fingerprint
    held_out = open_split(run.data, run.data.eval_split, vocab_size=run.model.vocab_size, vocabulary=fingerprint)
    shown = console if is_primary() else Console(quiet=True)
    own = find_vocabulary(training.stores, workdir, vocabulary, functools.partial(_show, shown))
    record = make_record(run, training.facts) | {"init_from": None if init_from is None else str(init_from)}
    check_record(workdir, record)
    params = None
    if init_from is not None and not (workdir / CHECKPOINTS).exists():
        params = load_initial_params(init_from, run.model, vocabulary=fingerprint)
    barrier(f"every process to have checked {workdir}")
    notify = functools.partial(_show, shown)
    with contextlib.ExitStack() as held:
        with together():
            if is_primary():
                held.enter_context(_claimed(workdir, record, config_gin, own, notify))
        also = held.enter_context(tracked(tracker if is_primary() else None, run, workdir, notify))
        return _Run(run, workdir, shown, mesh, training, held_out, also).train(params, profile, actions)


@contextlib.contextmanager
def _claimed(
    workdir: epath.Path,
    record: Mapping[str, Any],
    config_gin: str,
    vocabulary: Vocabulary | None,
    notify: Callable[[str], None],
) -> Iterator[None]:
    """Creates and locks the workdir and writes the run's record."""
    workdir.mkdir(parents=True, exist_ok=True)
    with hold_workdir(workdir, notify):
        if vocabulary is not None:
            keep_vocabulary(vocabulary, workdir)
        write_record(workdir, record)
        write_whole(workdir / "config.gin", config_gin)
        yield


class _Run:
    """Restores or initialises a run, and connects its loop with its checkpoints, metrics and data."""

    def __init__(
        self,
        run: RunConfig,
        workdir: epath.Path,
        console: Console,
        mesh: Mesh,
        training: TrainingData,
        held_out: TokenStore,
        also: WriteLine,
    ):
        self._config, self._workdir, self._console, self._mesh = run, workdir, console, mesh
        self._training, self._held_out, self._also = training, held_out, also

    def train(self, params: Params | None, profile: range, actions: Sequence[Action]) -> TrainResult:
        """Trains, and waits until everything is written."""
        settings = self._config.train
        writer = functools.partial(MetricsWriter, self._workdir, notify=self._print, also=self._also)
        with (
            Checkpoints(self._workdir, keep=settings.keep_checkpoints, notify=self._print) as checkpoints,
            Preemption() as preemption,
        ):
            like = with_shardings(self._mesh, abstract_train_state(self._config))
            restored = checkpoints.restore_newest(like)
            first = 0 if restored is None else restored.step
            self._announce(first)
            with (
                self._initial_state(params, restored) as initial_state,
                self._step(first) as take_step,
                writer(step=first) if is_primary() else contextlib.nullcontext() as metrics,
                Progress("train", settings.num_steps, done=first, console=self._console) as progress,
                Watchdog(self._print) as watchdog,
                self._batches(first) as batches,
            ):
                log = self._log(metrics, restored)
                traced = range(profile.start, min(profile.stop, settings.num_steps))
                trace = StartTrace(traced, self._workdir / "profile")
                save = SaveCheckpoint(self._config, checkpoints, log, first=first)
                evaluation = self._evaluation(log, metrics, progress, preemption)
                about = {"log": log, "metrics": metrics, "progress": progress, "notify": self._print}
                user = functools.partial(UserAction, **about, restored=restored and restored.step)
                in_order = [
                    StopTrace(trace, log, self._print),
                    *map(user, actions),
                    evaluation,
                    save,
                    StopIfInterrupted(preemption, settings.num_steps),
                    trace,
                ]
                Loop(
                    range(first, max(first, settings.num_steps)),
                    take_step=take_step,
                    batches=batches,
                    actions=in_order,
                    stop=functools.partial(_stop, save, preemption),
                    log=log,
                    progress=progress,
                    watchdog=watchdog,
                ).run(initial_state())
            barrier(f"every process to end the run in {self._workdir}")
        lines = [line for line in read_metrics(self._workdir) if line["group"] == self._config.data.eval_split]
        return TrainResult(lines[0], lines[-1])

    def _step(self, first: int) -> contextlib.AbstractContextManager[TakeStep]:
        """Compiles the step in the background, unless the run is complete."""
        if first >= self._config.train.num_steps:
            return contextlib.nullcontext(jit_train_step(self._config, self._mesh))
        return compiled_in_background(compile_train_step(self._config, self._mesh))

    @contextlib.contextmanager
    def _initial_state(self, params: Params | None, restored: Restored | None) -> Iterator[Callable[[], TrainState]]:
        """Compiles the initialisation in the background, unless the run continues."""
        if restored is not None:
            yield lambda: restored.state
            return
        run = self._config
        optimizer = make_optimizer(run.optimizer, run.train.num_steps)
        initialise = functools.partial(
            init_train_state, run.model, optimizer, seed=run.train.seed, batch_size=run.data.batch_size
        )
        jitted = jax.jit(
            initialise,
            out_shardings=shardings(self._mesh, abstract_train_state(run)),
            compiler_options=compiler_options(self._mesh.devices.flat[0].platform, forward_only=True),
        )
        with compiled_in_background(jitted.lower(params=params).compile) as program:
            yield lambda: program(params=params)

    def _log(self, metrics: MetricsWriter | None, restored: Restored | None) -> TrainLog:
        return TrainLog(
            self._config,
            metrics,
            bytes_per_token=self._training.bytes_per_token,
            describe_rows=self._describe_rows,
            notify=self._print,
            pending=None if restored is None else restored.log,
        )

    def _evaluation(
        self, log: TrainLog, metrics: MetricsWriter | None, progress: Progress, preemption: Preemption
    ) -> EvaluateSplit:
        return EvaluateSplit(
            self._config,
            self._held_out,
            self._mesh,
            log=log,
            metrics=metrics,
            progress=progress,
            preemption=preemption,
            notify=self._print,
        )

    def _batches(self, first: int) -> Prefetcher[SegmentBatch]:
        size = self._config.data.batch_size
        reader = self._training.reader(local_rows(self._mesh, size))
        steps, segments = range(first, self._config.train.num_steps), self._config.train.backprop_segments
        return Prefetcher(to_device(self._mesh, read_step(reader, step, segments), size) for step in steps)

    def _describe_rows(self, step: int, rows: np.ndarray) -> str:
        segments = self._config.train.backprop_segments
        located = [self._training.schedule.locate(step * segments + number) for number in range(segments)]
        parts = []
        for row in rows:
            firsts: dict[int, int] = {}  # document -> its first token in this step
            for positions in located:
                firsts.setdefault(int(positions.document[row]), int(positions.offset[row]))
            places = [f"document {self._training.name(key)}, tokens from {first:,}" for key, first in firsts.items()]
            parts.append(f"row {row}: {', '.join(places)}")
        return "; ".join(parts)

    def _announce(self, first: int) -> None:
        run = self._config
        shape = ", ".join(f"{axis} {size}" for axis, size in self._mesh.shape.items() if size > 1)
        self._print(
            f"{count_params(run.model):,} parameters; {self._mesh.size} {jax.devices()[0].device_kind} device(s)"
            + (f": {shape}" if shape else "")
            + (f"; {jax.process_count()} processes" if jax.process_count() > 1 else "")
        )
        for store in self._training.stores:
            counts = store.metadata.counts
            self._print(
                f"{store.metadata.name}, split {store.metadata.split}: {counts.documents:,} documents, "
                f"{counts.bytes:,} bytes, {counts.tokens:,} tokens, fingerprint {store.fingerprint[:12]}"
            )
        if first:
            self._print(f"continuing from the checkpoint of step {first}")

    def _print(self, message: str) -> None:
        _show(self._console, message)


def _show(console: Console, message: str) -> None:
    console.print(message, highlight=False, soft_wrap=True, markup=False)


def _stop(save: SaveCheckpoint, preemption: Preemption, step: int, state: TrainState) -> NoReturn:
    message = f"asked to stop at step {step}: {save.finish(step, state)}. The same command continues"
    raise PreemptedError(message, preemption.signal)
