"""Configuration of the optimizer, the mesh and the training loop."""

import dataclasses
from typing import Literal

from block_recurrent.errors import InputError
from block_recurrent.validation import check_choices, check_integers, check_numbers

NonFinite = Literal["stop", "skip"]
Schedule = Literal["cosine", "rsqrt", "rsqrt_to_min", "linear", "exponential", "constant"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adafactor and its learning rate, as the official code has them (see `optimizer.py`).

    Attributes:
        schedule: shape of the learning rate after warm-up. `rsqrt` is the paper's, `cosine` that of later runs.
        learning_rate: multiplies the schedule.
        warmup_steps: linear warm-up from 0.
        max_rate: where `cosine`, `linear` and `exponential` start (default 0.01), what `constant` is (default 0.01) and
            what clips `rsqrt` (default: nothing) and `rsqrt_to_min` (default 0.05).
        min_rate: where the decaying schedules end.
        decay_steps: steps until `min_rate`; None means the length of the run.
        spike_rate: start of an early linear spike on top of `cosine`; 0 means none.
        spike_steps: length of that spike.
        decay_rate: exponent of Adafactor's second-moment decay.
        momentum: decay of the moving average of the updates.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    schedule: Schedule = "cosine"
    learning_rate: float = 1.0
    warmup_steps: int = 1000
    max_rate: float | None = None
    min_rate: float = 0.001
    decay_steps: int | None = None
    spike_rate: float = 0.0
    spike_steps: int = 0
    decay_rate: float = 0.8
    momentum: float = 0.9

    def __post_init__(self):
        check_choices(self, {"schedule": Schedule})
        check_numbers(self, ("learning_rate", "min_rate", "spike_rate"), 0)
        check_numbers(self, ("decay_rate", "momentum"), 0, 1)
        check_integers(self, ("warmup_steps", "spike_steps"), 0)
        if self.max_rate is not None:
            check_numbers(self, ("max_rate",), self.min_rate)
        if self.decay_steps is not None:
            check_integers(self, ("decay_steps",), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How devices divide the work (see `partitioning.py`). It changes no result beyond the order of sums.

    Attributes:
        data: parts into which rows are divided, parameters being whole on each; None takes the devices that are left.
        fsdp: parts into which rows and parameters and optimizer state are divided.
        tensor: parts into which heads and hidden features are divided.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    data: int | None = None
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        if self.data is not None:
            check_integers(self, ("data",), 1)
        check_integers(self, ("fsdp", "tensor"), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long to train, and what the loop does on the way.

    Attributes:
        num_steps: length of the run.
        seed: of the initial parameters and of dropout.
        accumulate_steps: micro-batches that a step's rows are divided into and computed one after another, to save
            memory; the update is that of the whole batch.
        log_every: steps between two lines of metrics.
        eval_every: steps between two evaluations during training; one is made at the start and one at the end anyway.
        eval_steps: segments per row in those evaluations; None means the whole split.
        checkpoint_every: steps between two checkpoints; one is made at the end anyway.
        keep_checkpoints: how many of the newest stay.
        nonfinite: when a loss or gradient is not finite the step changes nothing but the data's place; then `stop` ends
            the run with an error and `skip` counts the step and goes on.
        peak_flops: of one device, floating-point operations per second, for the model FLOPs utilisation; None takes the
            published figure of a known TPU, and leaves the utilisation out elsewhere.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    num_steps: int
    seed: int = 0
    accumulate_steps: int = 1
    log_every: int = 20
    eval_every: int = 1000
    eval_steps: int | None = None
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3
    nonfinite: NonFinite = "stop"
    peak_flops: float | None = None
    # Removed: accepted at their old defaults, so that earlier files keep working.
    sample_tokens: dataclasses.InitVar[int] = 0
    sample_prompt: dataclasses.InitVar[str] = ""

    def __post_init__(self, sample_tokens: int, sample_prompt: str):
        for field, value in {"sample_tokens": sample_tokens, "sample_prompt": sample_prompt}.items():
            if value:
                raise InputError(
                    f"TrainConfig.{field} = {value!r}: removed; to sample from a trained run use "
                    "`generate --workdir DIR --prompt TEXT --num-tokens N`"
                )
        positive = ("num_steps", "accumulate_steps", "log_every", "eval_every", "checkpoint_every", "keep_checkpoints")
        check_integers(self, positive, 1)
        check_integers(self, ("seed",), 0)
        check_choices(self, {"nonfinite": NonFinite})
        if self.eval_steps is not None:
            check_integers(self, ("eval_steps",), 1)
        if self.peak_flops is not None:
            check_numbers(self, ("peak_flops",), 1)
