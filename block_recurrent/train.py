"""The training loop of one process."""

import dataclasses
import functools
import math
import time
from typing import Any

import jax
from etils import epath
from rich.console import Console

from block_recurrent.checkpoint import Checkpoints
from block_recurrent.config import RunConfig
from block_recurrent.data.split import open_split
from block_recurrent.data.training_data import TrainingData, open_training
from block_recurrent.evaluate import evaluate, to_device
from block_recurrent.metrics import MetricsWriter, read_metrics
from block_recurrent.model import count_params
from block_recurrent.optimizer import make_optimizer, make_schedule
from block_recurrent.progress import Progress
from block_recurrent.run_record import check_or_write_record, make_record
from block_recurrent.train_step import abstract_train_state, init_train_state, train_step
from block_recurrent.typing import Params


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        params: the trained parameters.
        first_evaluation: line of `metrics.jsonl` before the first step.
        last_evaluation: line of `metrics.jsonl` behind the last step.
    """

    params: Params
    first_evaluation: dict[str, Any]
    last_evaluation: dict[str, Any]


def train(run: RunConfig, workdir: epath.Path, console: Console, *, config_gin: str = "") -> TrainResult:
    """Trains from wherever the workdir stands to the end of the run.

    A run that was interrupted, even killed, continues from its newest checkpoint and computes what it would have
    computed uninterrupted, bit for bit on the same machine.

    Args:
        run: what to compute.
        workdir: the run's folder; made if it is not there.
        console: where progress is shown.
        config_gin: the experiment as gin sees it, written beside the checkpoints as `config.gin`.

    Raises:
        InputError: the data is missing or does not fit the model, or the workdir holds another run.
    """
    data, settings = run.data, run.train
    training = open_training(data, vocab_size=run.model.vocab_size)
    vocabulary = training.stores[0].vocabulary.fingerprint
    held_out = open_split(data, data.eval_split, vocab_size=run.model.vocab_size, vocabulary=vocabulary)
    check_or_write_record(workdir, make_record(run, training.facts))
    (workdir / "config.gin").write_text(config_gin)

    optimizer = make_optimizer(run.optimizer, settings.num_steps)
    take_step = jax.jit(functools.partial(train_step, run.model, optimizer), donate_argnums=0)
    initialise = functools.partial(
        init_train_state, run.model, optimizer, seed=settings.seed, batch_size=data.batch_size
    )
    shape = {"batch_size": data.batch_size, "segment_length": data.segment_length}

    with Checkpoints(workdir, keep=settings.keep_checkpoints) as checkpoints:
        first = checkpoints.latest_step or 0
        state = checkpoints.restore(abstract_train_state(run)) if first else jax.jit(initialise)()
        _announce(run, training, first, console)
        with (
            MetricsWriter(workdir, step=first) as metrics,
            Progress("train", settings.num_steps, done=first, console=console) as progress,
            training.reader().prefetch(first, settings.num_steps) as batches,
        ):
            log = _TrainLog(run, metrics, bytes_per_token=training.bytes_per_token)

            def evaluate_now(step: int, params: Params) -> None:
                def report(done: int, total: int) -> None:
                    progress.update(step, f"evaluating {data.eval_split}: {done}/{total}")

                scores = evaluate(run.model, params, held_out, **shape, max_steps=settings.eval_steps, report=report)
                metrics.write(step, data.eval_split, scores.as_dict())
                console.print(f"step {step}: {data.eval_split} {scores}", highlight=False, soft_wrap=True)

            # Order: evaluate, save, next batch, dispatch the step, read the metrics of the step before.
            for step, batch in enumerate(batches, first):
                fresh = step > first  # what was due at a checkpoint's step was done before it was saved
                if (fresh or step == 0) and step % settings.eval_every == 0:
                    log.catch_up()
                    evaluate_now(step, state.params)
                if fresh and step % settings.checkpoint_every == 0:
                    log.catch_up()  # so that the metrics on record reach as far as the checkpoint
                    checkpoints.save(step, state)
                state, sums = take_step(state, to_device(batch))
                log.add(step + 1, sums)
                progress.update(step, log.latest)
            log.catch_up()
            if first < settings.num_steps:
                evaluate_now(settings.num_steps, state.params)
                checkpoints.save(settings.num_steps, state)
    evaluations = [line for line in read_metrics(workdir) if line["group"] == data.eval_split]
    return TrainResult(state.params, evaluations[0], evaluations[-1])


class _TrainLog:
    """Means over the steps between two lines of metrics. It reads a step's sums while the next one is computed."""

    def __init__(self, run: RunConfig, metrics: MetricsWriter, *, bytes_per_token: float):
        self.latest = ""
        self._every = run.train.log_every
        self._schedule = make_schedule(run.optimizer, run.train.num_steps)
        self._metrics = metrics
        self._bytes_per_token = bytes_per_token
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._sums: list[dict[str, float]] = []
        self._began = time.perf_counter()

    def add(self, step: int, sums: dict[str, jax.Array]) -> None:
        """Takes the sums of step number `step`, counted from 1, and reads those of the step before."""
        self.catch_up()
        self._pending = step, sums

    def catch_up(self) -> None:
        """Reads what is pending; writes a line where one is due."""
        if self._pending is None:
            return
        step, sums = self._pending
        self._pending = None
        self._sums.append({name: float(value) for name, value in sums.items()})
        if step % self._every == 0:
            self._write(step)

    def _write(self, step: int) -> None:
        now = time.perf_counter()
        nats, tokens, norms = (sum(s[name] for s in self._sums) for name in ("nats", "tokens", "gradient_norm"))
        bits_per_token = nats / math.log(2) / max(tokens, 1)
        values = {
            "bits_per_byte": bits_per_token / self._bytes_per_token,
            "bits_per_token": bits_per_token,
            "gradient_norm": norms / len(self._sums),
            "learning_rate": float(self._schedule(step - 1)),
            "tokens_per_second": tokens / (now - self._began),
        }
        self._metrics.write(step, "train", values)
        self.latest = f"{values['bits_per_byte']:.3f} bits per byte  {values['tokens_per_second']:,.0f} tokens/s"
        self._sums, self._began = [], now


def _announce(run: RunConfig, training: TrainingData, first: int, console: Console) -> None:
    lines = [f"{count_params(run.model):,} parameters; {jax.device_count()} {jax.devices()[0].device_kind} device(s)"]
    for store in training.stores:
        counts = store.metadata.counts
        lines.append(
            f"{store.metadata.source}, split {store.metadata.split}: {counts.documents:,} documents, {counts.bytes:,} "
            f"bytes, {counts.tokens:,} tokens, fingerprint {store.fingerprint[:12]}"
        )
    if first:
        lines.append(f"continuing from the checkpoint of step {first}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
