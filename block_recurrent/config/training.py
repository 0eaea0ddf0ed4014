"""Configuration of the optimizer, the device mesh and the training loop."""

import dataclasses
from typing import Literal

from block_recurrent.errors import InputError
from block_recurrent.validation import LARGEST_SEED, check_choices, check_integers, check_numbers, check_shares, refuse

NonFinite = Literal["stop", "skip"]
Schedule = Literal["cosine", "rsqrt", "rsqrt_to_min", "linear", "exponential", "constant"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Settings of Adafactor and of its learning rate, as in the official code (see `training/optimizer.py`).

    Attributes:
        schedule: learning rate after warm-up as a function of the step: `rsqrt` (1 / sqrt(step); the paper), `cosine`
            (later runs of the official code), `linear`, `exponential`, `rsqrt_to_min` (1 / sqrt(step), scaled to reach
            `min_rate` at the end) or `constant`.
        learning_rate: factor of the whole schedule, including warm-up.
        warmup_steps: steps of the linear warm-up from 0 to the schedule's value at the end of warm-up; 0 for none.
        max_rate: start of `cosine`, `linear` and `exponential`, value of `constant` (None means 0.01); upper bound of
            `rsqrt` (None means no bound) and of `rsqrt_to_min` (None means 0.05). At least `min_rate`.
        min_rate: learning rate at the end of `cosine`, `linear`, `exponential` and `rsqrt_to_min`.
        decay_steps: steps until `min_rate`; None means `TrainConfig.num_steps`.
        spike_rate: `cosine` only: start of a spike that falls linearly to 0; the learning rate is the larger of spike
            and cosine.
        spike_steps: length of the spike in steps; 0 for none.
        decay_rate: exponent of the decay of Adafactor's second moments, from 0 to below 1.
        momentum: decay of the moving average of the updates, from 0 to below 1.
        gate_rate_multiplier: factor of the learning rate of the gates' biases, at least 0; 0 keeps them at their
            initial values. 1 is the paper's training; another value is a deviation from it. Ignored without recurrent
            layers.

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
    gate_rate_multiplier: float = 1.0

    def __post_init__(self):
        check_choices(self, {"schedule": Schedule})
        check_numbers(self, ("learning_rate", "min_rate", "spike_rate", "gate_rate_multiplier"), 0)
        check_numbers(self, ("decay_rate", "momentum"), 0, 1)
        check_integers(self, ("warmup_steps", "spike_steps"), 0)
        if self.max_rate is not None:
            check_numbers(self, ("max_rate",), 0)
            if self.max_rate < self.min_rate:
                raise refuse(
                    self,
                    "max_rate",
                    f"at least OptimizerConfig.min_rate = {self.min_rate!r}; raise max_rate or lower min_rate",
                )
        if self.decay_steps is not None:
            check_integers(self, ("decay_steps",), 1)


ROW_AXES = ("data", "fsdp")  # axes of the mesh that divide the rows of a batch
HEAD_AXIS = "tensor"  # the axis that divides heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Division of the work between devices (see `parallel/sharding.py`); it only changes the order of sums.

    The product of the three sizes is the number of devices.

    Attributes:
        data: number of parts of the batch; each part has all parameters. None means the remaining devices.
        fsdp: number of parts of the batch, the parameters and the optimizer state.
        tensor: number of parts of the heads and of the hidden features.

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
    """Settings of the training loop.

    Attributes:
        num_steps: number of optimizer steps of the run.
        seed: seed of the initial parameters and of dropout; at least 0.
        accumulate_steps: number of micro-batches of a step, computed one after another to save memory. Their gradients
            are summed, so the update is that of the whole batch. Must divide the rows of each device.
        backprop_segments: K, consecutive segments of each row in a step. Gradients flow from segment to segment through
            the recurrent states and the caches (truncated backpropagation through time), and a step has K times the
            tokens. The backward pass computes each segment again, so its memory is that of one segment and of K model
            states. 1 is the paper's training; another value is a deviation from it.
        state_passing: probability from 0 to 1 that a row which starts a document keeps the recurrent states after the
            last segment of its previous document, its padding included, as constants; caches are reset as always. The
            choice is a function of seed, step and row. Evaluation always resets. With 1 the learned initial states are
            never trained. 0 is the paper's training; another value is a deviation from it. Ignored without recurrent
            states.
        log_every: steps between two lines of metrics.
        eval_every: steps between two evaluations. There is also one at the start and one at the end of the run.
        eval_steps: segments per row in each of these evaluations; None means the whole split.
        first_eval_steps: segments per row in the evaluation before the first step; None means as many as in the others.
        state_report_every: steps between two state reports, which measure on held-out text whether the recurrent states
            are used (docs/recurrence.md). There is also one at the start and one at the end of the run. None means no
            reports. Runs without recurrent layers have none, so that all rows of a comparison can share this field.
        state_report_documents: documents of a state report, the longest of the held-out split; at least 2, because the
            intervals are over documents.
        state_report_segments: segments of each of these documents, from its start; at least 2. A report takes about six
            forward passes over documents x segments x `DataConfig.segment_length` tokens.
        state_dead_after: steps after which a state report says whether the state is dead.
        checkpoint_every: steps between two checkpoints. There is also one at the end of the run.
        keep_checkpoints: number of newest checkpoints that are kept.
        nonfinite: reaction to a loss or gradient that is not finite. Such a step never changes the parameters, the
            optimizer state or the model state; the batch is skipped. `stop` ends the run with an error (exit code 3);
            `skip` counts the step and continues.
        peak_flops: peak floating-point operations per second of one device, for the model FLOPs utilisation. None means
            the published number of a known TPU; on other devices the utilisation is not reported.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    num_steps: int
    seed: int = 0
    accumulate_steps: int = 1
    backprop_segments: int = 1
    state_passing: float = 0.0
    log_every: int = 20
    eval_every: int = 1000
    eval_steps: int | None = None
    first_eval_steps: int | None = None
    state_report_every: int | None = None
    state_report_documents: int = 20
    state_report_segments: int = 8
    state_dead_after: int = 1000
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
        check_integers(self, ("num_steps", "accumulate_steps", "backprop_segments", "state_dead_after"), 1)
        check_integers(self, ("log_every", "eval_every", "checkpoint_every", "keep_checkpoints"), 1)
        check_integers(self, ("state_report_documents", "state_report_segments"), 2)
        check_integers(self, ("seed",), 0, LARGEST_SEED)
        check_shares(self, ("state_passing",))
        check_choices(self, {"nonfinite": NonFinite})
        for optional in ("eval_steps", "first_eval_steps", "state_report_every"):
            if getattr(self, optional) is not None:
                check_integers(self, (optional,), 1)
        if self.peak_flops is not None:
            check_numbers(self, ("peak_flops",), 1)
