"""Frozen, keyword-only, validated configuration.

Every class checks itself when it is made, so a mistake is reported before any long work begins. The classes are plain
dataclasses: gin binds them from outside (see `main.py`) and they know nothing of it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from block_recurrent.errors import InputError
from block_recurrent.validation import (
    check_booleans,
    check_choices,
    check_integers,
    check_numbers,
    check_text_tuples,
    check_texts,
    refuse,
)

Layer = Literal["transformer", "lstm"]
Cell = Literal["dual", "single", "skip"]
Gate = Literal["fixed", "lstm"]
GateEquations = Literal["official", "paper"]
ActivationDType = Literal["float32", "bfloat16"]
Remat = Literal["none", "dots", "full"]
NonFinite = Literal["stop", "skip"]
Schedule = Literal["cosine", "rsqrt", "rsqrt_to_min", "linear", "exponential", "constant"]

# Fields of `ModelConfig` that decide how, and not what, is computed: a run may be continued with other values.
HOW_NOT_WHAT = ("remat", "scan_layers", "loss_chunk")
_ATTENTION_DIMS = ("num_heads", "head_dim", "mlp_dim")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the model computes. Segment length and batch size belong to the data, not to the model.

    Attributes:
        vocab_size: V, rows of the embedding table, which is also the output layer.
        embed_dim: D, the width of the residual stream and of a state vector.
        num_layers: how many layers, recurrent ones included.
        num_heads: N, attention heads. Needed, like the two that follow, unless `layer` is `lstm`.
        head_dim: H; N * H need not equal D.
        mlp_dim: F, the hidden width of the feed-forward networks.
        window_length: W, the length of a block: a token attends to exactly the W tokens before it. None means no window
            and no cache: full causal attention within the segment (a vanilla transformer).
        layer: `transformer`, or `lstm` for the baseline without attention: a stack of LSTMs of width D.
        recurrent_layers: indices of the recurrent layers; negative ones count from the last layer. Empty means none.
        num_states: S, state vectors of each recurrent layer. Needed (at least 1) when there are recurrent layers.
        cell: how a state is updated (paper, section 3.2 and figure 2): `dual` (attention and feed-forward, each gated),
            `single` (feed-forward alone, gated) or `skip` (attention alone, gated).
        gate: `fixed` (a learned constant per channel; the official code calls it `bias`) or `lstm`.
        feedback: every other layer also attends to the last recurrent layer's state; the stack runs block by block.
        gate_equations: `official` computes what the official code computes: tanh only in the `single` cell, no bias in
            the candidate. `paper` follows the paper's text: the candidate has a bias in every cell, and with the lstm
            gate it passes through tanh in every cell; the fixed gate then has no tanh.
        dropout_rate: on the inputs of attention, the outputs of the feed-forward networks and the final norm.
        attention_dropout_rate: on the tokens' self-attention probabilities.
        dtype: of activations, caches and states. Parameters, logits, softmax, norms and losses are float32.
        remat: what the backward pass finds of a layer, how and not what is computed: `none` keeps every intermediate
            result, `dots` keeps the products of activations with kernels and computes the rest again, `full` keeps only
            the layer's input.
        scan_layers: run equal layers that follow one another as one loop: quicker to compile, same parameters.
        loss_chunk: in training and evaluation, tokens of a row whose logits are there at once, to save memory; the
            backward pass computes them again. None computes those of the whole segment together.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int = 0
    head_dim: int = 0
    mlp_dim: int = 0
    window_length: int | None
    layer: Layer = "transformer"
    recurrent_layers: tuple[int, ...] = ()
    num_states: int = 0
    cell: Cell = "skip"
    gate: Gate = "fixed"
    feedback: bool = False
    gate_equations: GateEquations = "official"
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    dtype: ActivationDType = "float32"
    remat: Remat = "none"
    scan_layers: bool = False
    loss_chunk: int | None = None

    def __post_init__(self):
        check_integers(self, ("vocab_size", "embed_dim", "num_layers"), 1)
        check_integers(self, ("num_states",), 0)
        check_numbers(self, ("dropout_rate", "attention_dropout_rate"), 0, 1)
        check_booleans(self, ("feedback", "scan_layers"))
        choices = {"cell": Cell, "gate": Gate, "gate_equations": GateEquations, "dtype": ActivationDType}
        check_choices(self, choices | {"remat": Remat, "layer": Layer})
        if self.layer == "lstm":
            self._check_lstm()
        else:
            check_integers(self, _ATTENTION_DIMS, 1)
        for optional in ("window_length", "loss_chunk"):
            if getattr(self, optional) is not None:
                check_integers(self, (optional,), 1)
        self._check_recurrence()

    def _check_lstm(self) -> None:
        for field in (*_ATTENTION_DIMS, "window_length", "recurrent_layers", "num_states", "feedback"):
            if getattr(self, field):
                unset = getattr(type(self), field, None)
                raise refuse(self, field, f"{unset!r} with layer = 'lstm', which has no attention")

    def _check_recurrence(self) -> None:
        try:
            object.__setattr__(self, "recurrent_layers", tuple(self.recurrent_layers))  # gin also writes lists
        except TypeError:
            raise refuse(self, "recurrent_layers", "a tuple of layer indices") from None
        for index in self.recurrent_layers:
            if not isinstance(index, int) or not -self.num_layers <= index < self.num_layers:
                allowed = (
                    f"from {-self.num_layers} to {self.num_layers - 1} (ModelConfig.num_layers = {self.num_layers})"
                )
                raise refuse(self, "recurrent_layers", f"layer indices {allowed}; {index!r} is not")
        if len(self.recurrent_indices) != len(self.recurrent_layers):
            raise refuse(self, "recurrent_layers", "distinct layers; two entries name the same one")
        if self.recurrent_layers:
            check_integers(self, ("num_states",), 1)
            if self.window_length is None:
                raise refuse(self, "window_length", "an integer when there are recurrent layers: they run over blocks")
        elif self.feedback:
            raise refuse(self, "feedback", "False without recurrent layers: there is no state to attend to")

    @property
    def recurrent_indices(self) -> frozenset[int]:
        """The recurrent layers' indices, all non-negative."""
        return frozenset(index % self.num_layers for index in self.recurrent_layers)

    @property
    def feedback_index(self) -> int:
        """With feedback, the layer whose state is broadcast: of several recurrent layers the last one."""
        return max(self.recurrent_indices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Which documents become which token store.

    Attributes:
        source: name of the text source; `prepare --list` shows them.
        store: folder to write, local or `gs://`; each split becomes a token store of its own below it.
        input: where the source's text lies, a folder or a file, local or `gs://`; None for sources that need none.
        splits: the splits to prepare; None means all that the source has.
        vocabulary: `bytes`, or the path of a SentencePiece model.
        validation_percent: share of documents, of a corpus that is not divided into splits already.
        test_percent: likewise.
        extensions: endings of the files to read, with their dots; None means the source's own choice.
        text_field: of JSON lines, the field with the text.
        name_field: of JSON lines, the field with a unique name; None means file and line number.
        repository_depth: of a folder of repositories, 1 for `<repository>`, 2 for `<owner>/<repository>`.
        workers: processes that tokenise; None means one for each core. The store is the same for any number.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    source: str
    store: str
    input: str | None = None
    splits: tuple[str, ...] | None = None
    vocabulary: str = "bytes"
    validation_percent: float = 5
    test_percent: float = 5
    extensions: tuple[str, ...] | None = None
    text_field: str = "text"
    name_field: str | None = None
    repository_depth: int = 1
    workers: int | None = None

    def __post_init__(self):
        check_texts(self, ("source", "store", "vocabulary", "text_field"))
        check_texts(self, (field for field in ("input", "name_field") if getattr(self, field) is not None))
        check_text_tuples(self, ("splits", "extensions"))
        check_numbers(self, ("validation_percent", "test_percent"), 0, 100)
        if self.validation_percent + self.test_percent >= 100:
            raise refuse(self, "test_percent", "such that training documents are left")
        check_integers(self, ("repository_depth",), 1)
        if self.workers is not None:
            check_integers(self, ("workers",), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which tokens reach the model, and in which shape.

    Attributes:
        store: folder that `prepare` wrote.
        mixture: folders to train on instead, each with a weight: how often a row's next document comes from it.
            Evaluation reads `store`.
        min_document_tokens: shorter documents are left out of training.
        max_document_tokens: longer documents are read up to here in training; None means to their end.
        segment_length: tokens of one row in one step; a multiple of the model's window.
        batch_size: rows over all hosts; each reads a document of its own.
        train_split: the split to train on.
        eval_split: the split to evaluate on during training.
        seed: of the document order.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    store: str
    segment_length: int
    batch_size: int
    train_split: str = "train"
    eval_split: str = "validation"
    seed: int = 0
    mixture: Mapping[str, float] | None = None
    min_document_tokens: int = 2
    max_document_tokens: int | None = None

    def __post_init__(self):
        check_texts(self, ("store", "train_split", "eval_split"))
        check_integers(self, ("segment_length", "batch_size"), 1)
        check_integers(self, ("seed",), 0)
        check_integers(self, ("min_document_tokens",), 2)
        if self.max_document_tokens is not None:
            check_integers(self, ("max_document_tokens",), self.min_document_tokens)
        if self.mixture is not None:
            self._check_mixture()

    def _check_mixture(self) -> None:
        allowed = "None or a dict of folders and positive weights"
        if not isinstance(self.mixture, Mapping) or not self.mixture:
            raise refuse(self, "mixture", allowed)
        for folder, weight in self.mixture.items():
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not isinstance(folder, str) or not folder or not number or not 0 < weight < float("inf"):
                raise refuse(self, "mixture", allowed)


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
        sample_tokens: how many tokens to sample at the end; 0 means none.
        sample_prompt: what that sample continues.

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
    sample_tokens: int = 0
    sample_prompt: str = ""

    def __post_init__(self):
        positive = ("num_steps", "accumulate_steps", "log_every", "eval_every", "checkpoint_every", "keep_checkpoints")
        check_integers(self, positive, 1)
        check_integers(self, ("seed", "sample_tokens"), 0)
        check_choices(self, {"nonfinite": NonFinite})
        if self.eval_steps is not None:
            check_integers(self, ("eval_steps",), 1)
        if self.peak_flops is not None:
            check_numbers(self, ("peak_flops",), 1)
        if self.sample_tokens:
            check_texts(self, ("sample_prompt",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the studies of `evaluate` and `compare` are made; the data's shape is `DataConfig`'s.

    Attributes:
        bootstrap_replicates: draws of documents behind every confidence interval.
        bootstrap_level: coverage of the intervals.
        seed: of those draws, of the permutation test and of the documents of the qualitative study.
        official_segments: segments that each row reads with `--official`; the official code's 400.
        reset_segments: ablation `reset`: segments after which the recurrent states start anew.
        frozen_segments: ablation `frozen`: segments of a document after which the recurrent states stay as they are.
        diagnostic_tokens: how much of the longest document the diagnostics read.
        sampled_documents: documents of the qualitative study, drawn at random; the paper's 5.
        sampled_words: most improved words of each of them; the paper's 4.
        top_words: most improved words over all documents.
        passage_words: words shown on each side of an improved word.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    bootstrap_replicates: int = 1000
    bootstrap_level: float = 0.95
    seed: int = 0
    official_segments: int = 400
    reset_segments: int = 1
    frozen_segments: int = 1
    diagnostic_tokens: int = 100_000
    sampled_documents: int = 5
    sampled_words: int = 4
    top_words: int = 20
    passage_words: int = 40

    def __post_init__(self):
        positive = ("bootstrap_replicates", "official_segments", "reset_segments", "frozen_segments")
        check_integers(self, (*positive, "sampled_documents", "sampled_words", "top_words", "passage_words"), 1)
        check_integers(self, ("diagnostic_tokens",), 2)
        check_integers(self, ("seed",), 0)
        check_numbers(self, ("bootstrap_level",), 0.5, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a training run computes.

    Raises:
        InputError: the parts do not fit one another.
    """

    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self):
        if self.model.layer == "lstm" and self.train.sample_tokens:
            raise refuse(self.train, "sample_tokens", "0 with ModelConfig.layer = 'lstm', which cannot be sampled")
        segment, window, chunk = self.data.segment_length, self.model.window_length, self.model.loss_chunk
        if chunk is not None and segment % chunk:
            raise InputError(f"ModelConfig.loss_chunk = {chunk}: must divide DataConfig.segment_length = {segment}")
        if window is None:
            return
        if segment % window:
            raise InputError(
                f"DataConfig.segment_length = {segment}: must be a multiple of ModelConfig.window_length = {window}"
            )
        if self.model.recurrent_layers and segment == window:
            raise InputError(
                f"DataConfig.segment_length = {segment}: must be at least 2 * ModelConfig.window_length = {2 * window} "
                "to train recurrent layers: with one block per segment nothing that the loss sees depends on the "
                "state's update, so its parameters would get no gradient"
            )
