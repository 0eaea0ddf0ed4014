"""The training loop."""

import contextlib
import dataclasses
import functools
import time
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from rich.console import Console

from block_recurrent.config import RunConfig
from block_recurrent.data.batching.prefetch import Prefetcher
from block_recurrent.data.batching.training_data import TrainingData, open_training
from block_recurrent.data.store.open_split import open_split
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import PreemptedError
from block_recurrent.model.language_model import count_params
from block_recurrent.parallel.chips import compiler_options
from block_recurrent.parallel.preemption import Preemption
from block_recurrent.parallel.processes import agree, barrier, is_primary
from block_recurrent.parallel.sharding import check_rows, gather, local_rows, make_mesh, replicated, shardings
from block_recurrent.progress import Progress
from block_recurrent.training.checkpoint import CHECKPOINTS, Checkpoints, Restored
from block_recurrent.training.evaluator import evaluate, to_device
from block_recurrent.training.init_from import load_initial_params
from block_recurrent.training.log import TrainLog
from block_recurrent.training.metric_writer import MetricsWriter, read_metrics
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.run_record import check_record, make_record, write_record
from block_recurrent.training.step import SegmentBatch, TrainState, abstract_train_state, init_train_state, train_step
from block_recurrent.training.watchdog import Watchdog
from block_recurrent.training.workdir_lock import hold_workdir
from block_recurrent.typing import Params


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        first_evaluation: line of `metrics.jsonl` before the first step.
        last_evaluation: line of `metrics.jsonl` behind the last step.
    """

    first_evaluation: dict[str, Any]
    last_evaluation: dict[str, Any]


def train(
    run: RunConfig,
    workdir: epath.Path,
    console: Console,
    *,
    config_gin: str = "",
    init_from: epath.Path | None = None,
    profile: range = range(0),
) -> TrainResult:
    """Trains from wherever the workdir stands to the end of the run.

    A run that was interrupted, even killed, continues from its newest good checkpoint and computes what it would have
    computed uninterrupted, bit for bit on the same machine and mesh. With several processes all of them call this.

    Args:
        run: what to compute.
        workdir: the run's folder, the same for all processes; made if it is not there.
        console: where progress is shown, by the primary process alone.
        config_gin: the experiment as gin sees it, written beside the checkpoints as `config.gin`.
        init_from: where a new run's parameters come from (see `initial_params`); None draws them.
        profile: steps of which a trace is taken, into `profile/`.

    Raises:
        InputError: the data is missing or does not fit the model or the mesh, the workdir holds another run or is in
            use, or none of its checkpoints is good.
        NonFiniteError: a loss or gradient was not finite and `TrainConfig.nonfinite` is `stop`.
        PreemptedError: the process was asked to end; everything is saved.
        MissingProcessError: another process did not come.
    """
    mesh = make_mesh(run.mesh)
    check_rows(mesh, run.data.batch_size, run.train.accumulate_steps)
    training = open_training(run.data, vocab_size=run.model.vocab_size)
    vocabulary = training.stores[0].vocabulary.fingerprint
    held_out = open_split(run.data, run.data.eval_split, vocab_size=run.model.vocab_size, vocabulary=vocabulary)
    record = make_record(run, training.facts) | {"init_from": None if init_from is None else str(init_from)}
    check_record(workdir, record)
    params = None
    if init_from is not None and not (workdir / CHECKPOINTS).exists():
        params = load_initial_params(init_from, run.model, vocabulary=vocabulary)
    barrier(f"every process to have checked {workdir}")
    with contextlib.ExitStack() as held:
        if is_primary():
            workdir.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold_workdir(workdir))
            write_record(workdir, record)
            (workdir / "config.gin").write_text(config_gin)
        shown = console if is_primary() else Console(quiet=True)
        return _Loop(run, workdir, shown, mesh, training, held_out, profile).run(params)


def jit_train_step(run: RunConfig, mesh: Mesh) -> Any:
    """The program of one step, (TrainState, SegmentBatch) -> (TrainState, StepMetrics); the old state is donated."""
    step = functools.partial(
        train_step,
        run.model,
        make_optimizer(run.optimizer, run.train.num_steps),
        accumulate_steps=run.train.accumulate_steps,
        gather=functools.partial(gather, mesh),
    )
    placed = shardings(mesh, abstract_train_state(run))
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(placed, replicated(mesh)),
        compiler_options=compiler_options(mesh.devices.flat[0].platform),
    )


class _EndEvaluationError(Exception):
    """The process was asked to end."""


class _Loop:
    """One start of a run: what lives from its first step to its last."""

    def __init__(
        self,
        run: RunConfig,
        workdir: epath.Path,
        console: Console,
        mesh: Mesh,
        training: TrainingData,
        held_out: TokenStore,
        profile: range,
    ):
        self._config, self._workdir, self._console, self._mesh = run, workdir, console, mesh
        self._training, self._held_out, self._profile = training, held_out, profile
        self._optimizer = make_optimizer(run.optimizer, run.train.num_steps)
        self._abstract = abstract_train_state(run)
        self._shardings = shardings(mesh, self._abstract)
        self._preemption = Preemption()
        self._traced_from: int | None = None

    def run(self, params: Params | None) -> TrainResult:
        """Restores or begins, trains, and waits until everything is written."""
        settings = self._config.train
        keep = settings.keep_checkpoints
        with Checkpoints(self._workdir, keep=keep, notify=self._say) as checkpoints, self._preemption:
            self._checkpoints = checkpoints
            state, first, pending = self._begin(checkpoints.restore_newest(self._like()), params)
            self._announce(first)
            with (
                MetricsWriter(self._workdir, step=first, notify=self._say)
                if is_primary()
                else contextlib.nullcontext() as self._metrics,
                Progress("train", settings.num_steps, done=first, console=self._console) as self._progress,
                Watchdog(self._say) as self._watchdog,
            ):
                kept = [] if self._metrics is None else self._metrics.kept
                self._evaluated = {line["step"] for line in kept if line["group"] == self._config.data.eval_split}
                self._log = TrainLog(
                    self._config,
                    self._metrics,
                    bytes_per_token=self._training.bytes_per_token,
                    describe_rows=self._describe_rows,
                    notify=self._say,
                    pending=pending,
                )
                self._train(state, first)
            barrier(f"every process to end the run in {self._workdir}")
        lines = [line for line in read_metrics(self._workdir) if line["group"] == self._config.data.eval_split]
        return TrainResult(lines[0], lines[-1])

    def _like(self) -> TrainState:
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self._abstract,
            self._shardings,
        )

    def _begin(self, restored: Restored | None, params: Params | None) -> tuple[TrainState, int, Any]:
        if restored is not None:
            return restored.state, restored.step, restored.log
        run = self._config
        initialise = functools.partial(
            init_train_state, run.model, self._optimizer, seed=run.train.seed, batch_size=run.data.batch_size
        )
        return jax.jit(initialise, out_shardings=self._shardings)(params=params), 0, None

    def _train(self, state: TrainState, first: int) -> None:
        settings = self._config.train
        take_step = jit_train_step(self._config, self._mesh)
        save_again = False
        with self._batches(first) as batches:
            # Order: evaluate, save, next batch, dispatch the step, read the metrics of the step before.
            for step in range(first, settings.num_steps):
                asked = self._evaluate_if_due(step, state.params) or self._preemption.requested()
                due = step % settings.checkpoint_every == 0 or (save_again and step % settings.log_every == 0)
                if step > first and (due or asked):
                    save_again = not self._save(step, state)
                save_again |= self._checkpoints.failed()
                if asked:
                    self._end_early(step)
                self._trace(step)
                began = time.perf_counter()
                batch = next(batches)
                self._log.waited_for_data(time.perf_counter() - began)
                self._watchdog.beat(step)
                state, metrics = take_step(state, batch)
                self._log.add(step + 1, metrics)
                self._progress.update(step, self._log.latest)
        if first < settings.num_steps:
            self._log.catch_up()
            self._trace(settings.num_steps)
            self._evaluate_if_due(settings.num_steps, state.params)
            self._save(settings.num_steps, state)
            if not self._checkpoints.wait():
                self._save(settings.num_steps, state)

    def _batches(self, first: int) -> Prefetcher[SegmentBatch]:
        size = self._config.data.batch_size
        reader = self._training.reader(local_rows(self._mesh, size))
        steps = range(first, self._config.train.num_steps)
        return Prefetcher(to_device(self._mesh, reader.read(step), size) for step in steps)

    def _evaluate_if_due(self, step: int, params: Params) -> bool:
        """Evaluates at the start, at the end and in between, once each; True if asked to end meanwhile."""
        settings, split = self._config.train, self._config.data.eval_split
        due = step % settings.eval_every == 0 or step == settings.num_steps
        if not due or agree(int(step in self._evaluated)):
            return False
        self._log.catch_up()

        def progress(done: int, total: int) -> None:
            self._progress.update(step, f"evaluating {split}: {done}/{total}")
            if self._preemption.requested():
                raise _EndEvaluationError

        with self._watchdog.resting():
            try:
                scores = evaluate(
                    self._config.model,
                    params,
                    self._held_out,
                    mesh=self._mesh,
                    batch_size=self._config.data.batch_size,
                    segment_length=self._config.data.segment_length,
                    max_steps=settings.eval_steps,
                    progress=progress,
                )
            except _EndEvaluationError:
                return True
        self._say(f"step {step}: {split} {scores}")
        self._evaluated.add(step)
        if self._metrics is not None:
            self._metrics.write(step, split, scores.as_dict())
        self._log.start_clock()
        return False

    def _save(self, step: int, state: TrainState) -> bool:
        with self._watchdog.resting():
            return self._checkpoints.save(step, state, log=self._log.catch_up())

    def _end_early(self, step: int) -> None:
        with self._watchdog.resting():
            saved = self._checkpoints.wait()
        newest = self._checkpoints.steps[-1:]
        state = f"saved at step {newest[0]}" if newest else "nothing was saved yet"
        failed = "" if saved else "; the last save failed"
        raise PreemptedError(f"asked to end at step {step}: {state}{failed}. The same command continues")

    def _trace(self, step: int) -> None:
        """Begins and ends the trace; a run that begins within the steps asked for traces those that are left."""
        wanted = is_primary() and step in self._profile
        if wanted and self._traced_from is None:
            jax.profiler.start_trace(str(self._workdir / "profile"))
            self._traced_from = step
        elif self._traced_from is not None and not wanted:
            self._log.catch_up()
            jax.profiler.stop_trace()
            self._say(f"trace of steps {self._traced_from} to {step - 1} in {self._workdir / 'profile'}")
            self._traced_from = None

    def _describe_rows(self, step: int, rows: np.ndarray) -> str:
        located = self._training.schedule.locate(step)
        parts = []
        for row in rows:
            document, offset = int(located.document[row]), int(located.offset[row])
            parts.append(f"row {row}: document {self._training.name(document)}, tokens from {offset:,}")
        return "; ".join(parts)

    def _announce(self, first: int) -> None:
        run = self._config
        shape = ", ".join(f"{axis} {size}" for axis, size in self._mesh.shape.items() if size > 1)
        self._say(
            f"{count_params(run.model):,} parameters; {self._mesh.size} {jax.devices()[0].device_kind} device(s)"
            + (f": {shape}" if shape else "")
            + (f"; {jax.process_count()} processes" if jax.process_count() > 1 else "")
        )
        for store in self._training.stores:
            counts = store.metadata.counts
            self._say(
                f"{store.metadata.source}, split {store.metadata.split}: {counts.documents:,} documents, "
                f"{counts.bytes:,} bytes, {counts.tokens:,} tokens, fingerprint {store.fingerprint[:12]}"
            )
        if first:
            self._say(f"continuing from the checkpoint of step {first}")

    def _say(self, message: str) -> None:
        self._console.print(message, highlight=False, soft_wrap=True, markup=False)
