"""The training log: means over the steps between two lines, speed, loss spikes and steps that are not finite."""

import math
import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from block_recurrent.config import RunConfig
from block_recurrent.errors import NonFiniteError
from block_recurrent.model.flops import training_flops
from block_recurrent.parallel.chips import peak_flops
from block_recurrent.training.metric_writer import MetricsWriter, with_current_names
from block_recurrent.training.optimizer import make_schedule
from block_recurrent.training.step import StepMetrics

_SPIKE_HISTORY = 50  # lines
_FEWEST_LINES = 20  # before anything can be a spike
_SPIKE_DEVIATIONS = 8.0
_LEAST_DEVIATION = 0.02  # of the median


class TrainLog:
    """Reads the metrics of a step while the devices compute the next, and writes a line every `log_every` steps.

    Attributes:
        latest: loss and speed of the last line, for the progress bar.

    Args:
        run: the configuration.
        metrics: writes the lines; None on processes that do not write.
        bytes_per_token: mean number of bytes of a training token.
        describe_rows: returns the documents of some rows at a step, for messages about a step that is not finite.
        notify: called with one sentence for each spike and each skipped step.
        pending: the unwritten steps of the checkpoint that the run continues from, as `catch_up` returned them.
    """

    def __init__(
        self,
        run: RunConfig,
        metrics: MetricsWriter | None,
        *,
        bytes_per_token: float,
        describe_rows: Callable[[int, np.ndarray], str],
        notify: Callable[[str], None],
        pending: list[dict[str, float]] | None = None,
    ):
        self.latest = ""
        self._run = run
        self._metrics = metrics
        self._schedule = make_schedule(run.optimizer, run.train.num_steps)
        self._bytes_per_token = bytes_per_token
        self._describe_rows = describe_rows
        self._notify = notify
        self._unread: tuple[int, StepMetrics] | None = None
        self._compiled = False  # the first step of this process waits for its compilation
        self._window: list[dict[str, float]] = [with_current_names(numbers) for numbers in pending or []]
        kept = [] if metrics is None else metrics.kept
        losses = [line["bits_per_byte"] for line in kept if line["group"] == "train"]
        self._losses: deque[float | None] = deque(losses, maxlen=_SPIKE_HISTORY)
        flops = training_flops(run.model, run.data.segment_length)
        peak = run.train.peak_flops or peak_flops(jax.devices()[0].device_kind)
        self._utilisation_per_token = flops / (peak * jax.device_count()) if peak else None
        self.start_clock()

    def start_clock(self) -> None:
        """Restarts the clock of the next line, so that the time before (an evaluation, for example) does not count."""
        self._began, self._waited, self._steps, self._tokens = time.perf_counter(), 0.0, 0, 0.0

    def waited_for_data(self, seconds: float) -> None:
        """Adds the time that the loop waited for a batch."""
        self._waited += seconds

    def add(self, step: int, metrics: StepMetrics) -> None:
        """Stores the metrics of step number `step`, counted from 1, and reads those of the step before."""
        self.catch_up()
        self._unread = step, metrics

    def catch_up(self) -> list[dict[str, float]]:
        """Reads the metrics of the last step, and writes a line if one is due.

        Returns:
            The steps that no line contains yet, to be saved in a checkpoint.

        Raises:
            NonFiniteError: the step was not finite and `TrainConfig.nonfinite` is `stop`.
        """
        if self._unread is None:
            return self._window
        step, metrics = self._unread
        self._unread = None
        read = jax.device_get(metrics)
        self._steps, self._tokens = self._steps + 1, self._tokens + float(read.tokens)
        self._window.append(_as_numbers(read))
        if not read.finite:
            self._not_finite(step, read)
        if step % self._run.train.log_every == 0:
            self._write(step)
        elif not self._compiled:
            self.start_clock()  # so that the speed of the first line does not count the compilation
        self._compiled = True
        return self._window

    def _not_finite(self, step: int, metrics: StepMetrics) -> None:
        rows = np.flatnonzero(~np.isfinite(metrics.row_losses))
        where = self._describe_rows(step - 1, rows) if len(rows) else "only the gradients; every row's loss is finite"
        message = f"step {step}: not finite: {where}"
        if self._run.train.nonfinite == "stop":
            raise NonFiniteError(
                f"{message}. The step changed nothing; the newest checkpoint is good. Continue with another learning "
                "rate, or with TrainConfig.nonfinite = 'skip', which counts and skips such steps"
            )
        self._notify(f"{message}; skipped")

    def _write(self, step: int) -> None:
        window, self._window = self._window, []
        values = self._means(step, window)
        spike = spike_above(values["bits_per_byte"], self._losses)
        self._losses.append(values["bits_per_byte"])
        if spike is not None:
            self._notify(
                f"step {step}: loss spike: {values['bits_per_byte']:.3f} bits per byte; the median of the lines before "
                f"it is {spike:.3f}"
            )
        speed = self._speed()
        if self._metrics is not None:
            self._metrics.write(step, "train", values | {"spike": int(spike is not None)})
            self._metrics.write(step, "speed", speed)
        loss = values["bits_per_byte"]
        shown = "no finite step" if loss is None else f"{loss:.3f} bits per byte"
        self.latest = f"{shown}  {speed['tokens_per_second']:,.0f} tokens/s"
        self.start_clock()

    def _means(self, step: int, window: list[dict[str, float]]) -> dict[str, Any]:
        finite = [numbers for numbers in window if numbers["finite"]]
        tokens = sum(numbers["tokens"] for numbers in finite)
        bits = sum(numbers["nats"] for numbers in finite) / math.log(2) / tokens if tokens else None
        values: dict[str, Any] = {
            "bits_per_byte": None if bits is None else bits / self._bytes_per_token,
            "bits_per_token": bits,
            "learning_rate": float(self._schedule(step - 1)),
            "skipped_steps": len(window) - len(finite),
        }
        names = [name for name in window[0] if name not in ("nats", "tokens", "finite")]
        return values | {name: sum(x[name] for x in finite) / len(finite) if finite else None for name in names}

    def _speed(self) -> dict[str, float]:
        seconds = max(time.perf_counter() - self._began, 1e-9)
        speed = {
            "tokens_per_second": self._tokens / seconds,
            "seconds_per_step": seconds / max(self._steps, 1),
            "data_wait": self._waited / seconds,
            "host_memory_gb": _peak_host_bytes() / 1e9,
        }
        if self._utilisation_per_token is not None:
            speed["model_flops_utilisation"] = speed["tokens_per_second"] * self._utilisation_per_token
        if memory := jax.local_devices()[0].memory_stats():
            speed["device_memory_gb"] = memory.get("peak_bytes_in_use", 0) / 1e9
        return speed


def spike_above(value: float | None, before: Iterable[float | None]) -> float | None:
    """Returns the usual loss if the loss of a line is far above it, else None.

    Args:
        value: the loss of a line.
        before: the losses of up to 50 lines before it.

    Returns:
        The median of the losses before, if there are at least 20 and `value` exceeds the median by more than 8 robust
        standard deviations and by more than 8 times 2 % of the median; else None.
    """
    known = [loss for loss in before if loss is not None]
    if value is None or len(known) < _FEWEST_LINES:
        return None
    median = statistics.median(known)
    deviation = 1.4826 * statistics.median(abs(loss - median) for loss in known)
    return median if value > median + _SPIKE_DEVIATIONS * max(deviation, _LEAST_DEVIATION * median) else None


def _as_numbers(metrics: StepMetrics) -> dict[str, float]:
    numbers = {
        "nats": float(metrics.row_losses.sum(dtype=np.float64)),
        "tokens": float(metrics.tokens),
        "finite": bool(metrics.finite),
        "gradient_norm": float(metrics.gradient_norm),
        "update_norm": float(metrics.update_norm),
        "param_norm": float(metrics.param_norm),
    }
    numbers |= {f"state_norm/{layer}": float(norm) for layer, norm in metrics.state_norms.items()}
    for layer, places in metrics.gates.items():
        for place, gates in places.items():
            numbers[f"gate/{layer}/{place}/forget"] = float(gates.forget)
            numbers[f"gate/{layer}/{place}/input"] = float(gates.input)
    return numbers


def _peak_host_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
