"""Configuration of the model."""

import dataclasses
from typing import Any, Literal

from block_recurrent.errors import InputError
from block_recurrent.registry import check_names
from block_recurrent.validation import check_booleans, check_choices, check_integers, check_numbers, refuse

Layer = Literal["transformer", "lstm"]
GateEquations = Literal["official", "paper"]
ActivationDType = Literal["float32", "bfloat16"]
Remat = Literal["none", "dots", "full"]
Retrieval = Literal["bucketed", "exact", "approximate"]
AttentionKernel = Literal["xla", "fused"]

# Occasions on which a field may differ from the stored one: a run resumes, a run starts with the parameters of another
# model, a saved decoding state is loaded, the token losses of an evaluation are read again.
Purpose = Literal["resume", "init_from", "saved_state", "token_losses"]
_EXECUTION = {"may_differ": ("resume", "init_from", "saved_state")}  # execution fields: they do not change results
_YOUNG_EXECUTION = {"may_differ": ("resume", "init_from", "saved_state", "token_losses")}
_TRAINING = {"may_differ": ("init_from", "saved_state")}  # fields that matter only while a run trains
# The older fields are not free for `token_losses`: files of 0.1.0 hold them.
_INITIAL = {"may_differ": ("init_from", "saved_state", "token_losses")}  # fields that decide only initial parameters
_PRECISION = {"may_differ": ("init_from",)}
# The parameters fit any memory: a model may continue with a larger one.
_MEMORY = {"may_differ": ("init_from",)}

MEMORY_FIELDS = frozenset({"memory_layers", "memory_size", "memory_neighbors", "memory_retrieval"})
LANES = 128  # of a TPU; the tiles of the fused attention kernel are multiples of them
_ATTENTION_DIMS = ("num_heads", "head_dim", "mlp_dim")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of the model. `DataConfig` has the segment length and the batch size.

    Attributes:
        vocab_size: V, number of tokens in the vocabulary; at least 1. The embedding table has V rows and is also the
            output layer.
        embed_dim: D, width of the residual stream and of a state vector.
        num_layers: number of layers, including recurrent layers.
        num_heads: N, number of attention heads; 0 with `layer = "lstm"`.
        head_dim: H, width of an attention head; N * H may differ from D; 0 with `layer = "lstm"`.
        mlp_dim: F, hidden width of the feed-forward networks; 0 with `layer = "lstm"`.
        window_length: W, tokens of a block. A token attends to exactly the previous W tokens.
            None means full causal attention within the segment, without a cache (a vanilla transformer).
        layer: `transformer`, or `lstm` for the baseline without attention: every layer is an LSTM of width D.
        recurrent_layers: indices of the recurrent layers; negative indices count from the last layer. Empty means no
            recurrence.
        num_states: S, state vectors of each recurrent layer; at least 1 with recurrent layers. Ignored without them.
        cell: update of the states (paper, section 3.2 and figure 2): `dual` (gated attention, then a gated feed-forward
            network), `single` (a gated feed-forward network on the attention outputs) or `skip` (gated attention
            without a feed-forward network), or the name of a registered cell (docs/extending.md).
        gate: gate of the update (paper, section 3.2): `fixed` (a learned constant per channel; `bias` in the official
            code) or `lstm` (input and forget gates computed from the candidate's features), or the name of a
            registered gate (docs/extending.md).
        feedback: block feedback (paper, section 3.4): the other layers also attend to the state of the last recurrent
            layer, and the layers run block by block. Needs recurrent layers.
        gate_equations: differences between the official code and the paper. `official`: the candidate has no bias, and
            tanh only in the `single` cell. `paper`: the candidate has a bias in every cell, and tanh in every cell with
            the lstm gate and in none with the fixed gate.
        gate_init_bias: mean b of the initial biases of the gates, from -20 to below 20; their standard deviation is
            0.1. With the fixed gate, a state keeps sigmoid(b) of itself in each block at the start of training. With
            the lstm gate it keeps sigmoid(b + 1): the bias of the forget gate starts at b, that of the input gate at
            -b. None, as in the official code, is mean 0 for all of them; another value is a deviation from the paper.
            Ignored without recurrent layers.
        memory_layers: indices of the layers with an external memory (Memorizing Transformers, arXiv:2203.08913), as
            `recurrent_layers`; a layer may be in both. Such a layer has no relative position bias. The memory of a row
            has the keys and values of earlier segments of its document, so the segment length matters: it must divide
            `memory_size`. With block feedback the memory is written and searched block by block, and W must divide
            `memory_size`. Works with `window_length` None, where nothing else is carried between segments.
        memory_size: M, slots of the memory per row and head; a slot has the key and the value of a token. Ignored
            without memory layers.
        memory_neighbors: number of slots that a query retrieves, at most M; a divisor of M for `bucketed`. Ignored
            without memory layers.
        memory_retrieval: which slots a query retrieves: `bucketed` (the best slot of each of `memory_neighbors`
            buckets; the official code), `exact` (the slots with the largest products; the paper) or `approximate` (as
            `exact`, by `jax.lax.approx_max_k` with its default recall target of 0.95). Ignored without memory layers.
        dropout_rate: probability from 0 to below 1 of dropping a channel of the attention inputs, the feed-forward
            outputs and the output of the final norm. Training only.
        attention_dropout_rate: probability from 0 to below 1 of dropping a weight of the self-attention between tokens.
            Training only.
        dtype: `float32` or `bfloat16`, dtype of activations, caches and states. Parameters, logits, softmax, norms and
            losses are always float32.
        remat: rematerialisation policy of the layers in the backward pass: `none` stores all intermediate results,
            `dots` stores the products of activations with kernels and recomputes the rest, `full` stores only the
            inputs. An execution field: it does not change results.
        scan_layers: run consecutive equal layers as loops of at most 9 layers (7 with `remat = "full"`), which compile
            faster. The parameters are the same. An execution field.
        loss_chunk: tokens of a row whose logits are in memory at the same time in training and evaluation; it must
            divide the segment length. The backward pass recomputes the logits. None computes the logits of the whole
            segment at once. An execution field.
        attention_kernel: how training and its evaluations compute the self-attention of tokens. `xla`: by ordinary
            operations, which write logits and weights to memory. `fused`: by a kernel for TPUs, which does not; it
            needs a window. On other platforms `fused` is a slow program for tests. An execution field.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    head_dim: int
    mlp_dim: int
    window_length: int | None
    layer: Layer = "transformer"
    recurrent_layers: tuple[int, ...] = ()
    num_states: int = 0
    cell: str = "skip"
    gate: str = "fixed"
    feedback: bool = False
    gate_equations: GateEquations = "official"
    gate_init_bias: float | None = dataclasses.field(default=None, metadata=_INITIAL)
    memory_layers: tuple[int, ...] = ()
    memory_size: int = dataclasses.field(default=0, metadata=_MEMORY)
    memory_neighbors: int = dataclasses.field(default=0, metadata=_MEMORY)
    memory_retrieval: Retrieval = dataclasses.field(default="bucketed", metadata=_MEMORY)
    dropout_rate: float = dataclasses.field(default=0.0, metadata=_TRAINING)
    attention_dropout_rate: float = dataclasses.field(default=0.0, metadata=_TRAINING)
    dtype: ActivationDType = dataclasses.field(default="float32", metadata=_PRECISION)
    remat: Remat = dataclasses.field(default="none", metadata=_EXECUTION)
    scan_layers: bool = dataclasses.field(default=False, metadata=_EXECUTION)
    loss_chunk: int | None = dataclasses.field(default=None, metadata=_EXECUTION)
    attention_kernel: AttentionKernel = dataclasses.field(default="xla", metadata=_YOUNG_EXECUTION)

    def __post_init__(self):
        check_integers(self, ("vocab_size", "embed_dim", "num_layers"), 1)
        check_integers(self, ("num_states", "memory_size", "memory_neighbors"), 0)
        check_numbers(self, ("dropout_rate", "attention_dropout_rate"), 0, 1)
        check_booleans(self, ("feedback", "scan_layers"))
        check_names(self)
        choices = {"gate_equations": GateEquations, "dtype": ActivationDType, "remat": Remat, "layer": Layer}
        check_choices(self, choices | {"memory_retrieval": Retrieval, "attention_kernel": AttentionKernel})
        if self.layer == "lstm":
            self._check_lstm()
        else:
            check_integers(self, _ATTENTION_DIMS, 1)
        for optional in ("window_length", "loss_chunk"):
            if getattr(self, optional) is not None:
                check_integers(self, (optional,), 1)
        if self.gate_init_bias is not None:
            check_numbers(self, ("gate_init_bias",), -20, 20)  # beyond them, sigmoid is 0 or 1 in float32
        if self.attention_kernel == "fused" and self.window_length is None:
            raise refuse(self, "attention_kernel", "'xla' with window_length = None: the fused kernel needs a window")
        self._check_recurrence()
        self._check_memory()

    def check_platform(self, platform: str) -> None:
        """Checks that the attention kernel can be compiled for a platform.

        Args:
            platform: jax's name of it.

        Raises:
            InputError: the fused kernel's tiles do not divide the window or the heads on a TPU.
        """
        if self.attention_kernel == "fused" and platform == "tpu":
            for field in ("window_length", "head_dim"):
                if getattr(self, field) % LANES:
                    allowed = f"a multiple of {LANES} with ModelConfig.attention_kernel = 'fused' on a TPU"
                    raise refuse(self, field, f"{allowed}; attention_kernel = 'xla' runs with any")

    def without_kernels(self) -> "ModelConfig":
        """Returns the configuration that computes the same by ordinary operations, which run on any devices."""
        return dataclasses.replace(self, attention_kernel="xla")

    def _check_lstm(self) -> None:
        allowed = lstm_fields() | {"recurrent_layers": (), "num_states": 0, "feedback": False, "memory_layers": ()}
        for field, value in allowed.items():
            if getattr(self, field):
                raise refuse(self, field, f"{value!r} with layer = 'lstm', which has no attention")

    def _check_recurrence(self) -> None:
        self._check_indices("recurrent_layers")
        if self.recurrent_layers:
            check_integers(self, ("num_states",), 1)
            if self.window_length is None:
                raise refuse(self, "window_length", "an integer when there are recurrent layers: they run over blocks")
        elif self.feedback:
            raise refuse(self, "feedback", "False without recurrent layers: there is no state to attend to")

    def _check_memory(self) -> None:
        self._check_indices("memory_layers")
        if not self.memory_layers:
            return
        check_integers(self, ("memory_size", "memory_neighbors"), 1)
        if self.memory_neighbors > self.memory_size:
            raise refuse(self, "memory_neighbors", f"at most ModelConfig.memory_size = {self.memory_size}")
        if self.memory_retrieval == "bucketed" and self.memory_size % self.memory_neighbors:
            raise refuse(
                self,
                "memory_neighbors",
                f"a divisor of ModelConfig.memory_size = {self.memory_size}: bucketed retrieval has as many buckets",
            )
        if self.feedback and self.memory_size % (self.window_length or 1):
            raise refuse(
                self,
                "memory_size",
                f"a multiple of ModelConfig.window_length = {self.window_length}: with block feedback the memory is "
                "written block by block",
            )

    def _check_indices(self, field: str) -> None:
        """Checks that a field has indices of distinct layers, and converts lists to tuples."""
        try:
            object.__setattr__(self, field, tuple(getattr(self, field)))  # gin also writes lists
        except TypeError:
            raise refuse(self, field, "a tuple of layer indices") from None
        for index in getattr(self, field):
            if not isinstance(index, int) or not -self.num_layers <= index < self.num_layers:
                allowed = (
                    f"from {-self.num_layers} to {self.num_layers - 1} (ModelConfig.num_layers = {self.num_layers})"
                )
                raise refuse(self, field, f"layer indices {allowed}; {index!r} is not")
        if len(self._indices(field)) != len(getattr(self, field)):
            raise refuse(self, field, "distinct layers; two entries name the same one")

    def _indices(self, field: str) -> frozenset[int]:
        return frozenset(index % self.num_layers for index in getattr(self, field))

    def check_memory_segment(self, segment_length: int, name: str) -> None:
        """Checks that segments of this length can be written into the memory.

        Args:
            segment_length: T, tokens of a segment.
            name: what the length is, for the error message, such as `DataConfig.segment_length`.

        Raises:
            InputError: the model has a memory that is written segment by segment, and T does not divide its size.
        """
        if self.memory_layers and not self.feedback and self.memory_size % max(segment_length, 1):
            raise InputError(
                f"{name} = {segment_length}: must divide ModelConfig.memory_size = {self.memory_size}: the memory is "
                "written segment by segment"
            )

    @property
    def recurrent_indices(self) -> frozenset[int]:
        """Non-negative indices of the recurrent layers."""
        return self._indices("recurrent_layers")

    @property
    def memory_indices(self) -> frozenset[int]:
        """Non-negative indices of the layers with an external memory."""
        return self._indices("memory_layers")

    @property
    def depends_on_segments(self) -> bool:
        """True if results depend on the segment length.

        They do with attention to the whole segment (no window), and with a memory that is written segment by segment.
        """
        return self.window_length is None or bool(self.memory_layers and not self.feedback)

    @property
    def feedback_index(self) -> int:
        """Index of the layer with the state for block feedback: the last recurrent layer."""
        return max(self.recurrent_indices)


def fields_that_may_differ(purpose: Purpose) -> frozenset[str]:
    """Returns the names of the `ModelConfig` fields that may differ for this purpose."""
    fields = dataclasses.fields(ModelConfig)
    return frozenset(field.name for field in fields if purpose in field.metadata.get("may_differ", ()))


def lstm_fields() -> dict[str, Any]:
    """Returns the fields without meaning for `layer = "lstm"`, with the only values allowed there."""
    return dict.fromkeys(_ATTENTION_DIMS, 0) | {"window_length": None}
