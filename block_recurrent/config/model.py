"""Configuration of the model."""

import dataclasses
from typing import Any, Literal

from block_recurrent.registry import check_names
from block_recurrent.validation import check_booleans, check_choices, check_integers, check_numbers, refuse

Layer = Literal["transformer", "lstm"]
GateEquations = Literal["official", "paper"]
ActivationDType = Literal["float32", "bfloat16"]
Remat = Literal["none", "dots", "full"]

# Occasions on which a field may differ from the stored one: a run resumes, a run starts with the parameters of another
# model, a saved decoding state is loaded, the token losses of an evaluation are read again.
Purpose = Literal["resume", "init_from", "saved_state", "token_losses"]
_EXECUTION = {"may_differ": ("resume", "init_from", "saved_state")}  # execution fields: they do not change results
_TRAINING = {"may_differ": ("init_from", "saved_state")}  # fields that matter only while a run trains
# The older fields are not free for `token_losses`: files of 0.1.0 hold them.
_INITIAL = {"may_differ": ("init_from", "saved_state", "token_losses")}  # fields that decide only initial parameters
_PRECISION = {"may_differ": ("init_from",)}

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
        dropout_rate: probability from 0 to below 1 of dropping a channel of the attention inputs, the feed-forward
            outputs and the output of the final norm. Training only.
        attention_dropout_rate: probability from 0 to below 1 of dropping a weight of the self-attention between tokens.
            Training only.
        dtype: `float32` or `bfloat16`, dtype of activations, caches and states. Parameters, logits, softmax, norms and
            losses are always float32.
        remat: rematerialisation policy of the layers in the backward pass: `none` stores all intermediate results,
            `dots` stores the products of activations with kernels and recomputes the rest, `full` stores only the
            inputs. An execution field: it does not change results.
        scan_layers: run consecutive equal layers as one loop, which compiles faster. The parameters are the same. An
            execution field.
        loss_chunk: tokens of a row whose logits are in memory at the same time in training and evaluation; it must
            divide the segment length. The backward pass recomputes the logits. None computes the logits of the whole
            segment at once. An execution field.

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
    dropout_rate: float = dataclasses.field(default=0.0, metadata=_TRAINING)
    attention_dropout_rate: float = dataclasses.field(default=0.0, metadata=_TRAINING)
    dtype: ActivationDType = dataclasses.field(default="float32", metadata=_PRECISION)
    remat: Remat = dataclasses.field(default="none", metadata=_EXECUTION)
    scan_layers: bool = dataclasses.field(default=False, metadata=_EXECUTION)
    loss_chunk: int | None = dataclasses.field(default=None, metadata=_EXECUTION)

    def __post_init__(self):
        check_integers(self, ("vocab_size", "embed_dim", "num_layers"), 1)
        check_integers(self, ("num_states",), 0)
        check_numbers(self, ("dropout_rate", "attention_dropout_rate"), 0, 1)
        check_booleans(self, ("feedback", "scan_layers"))
        check_names(self)
        choices = {"gate_equations": GateEquations, "dtype": ActivationDType}
        check_choices(self, choices | {"remat": Remat, "layer": Layer})
        if self.layer == "lstm":
            self._check_lstm()
        else:
            check_integers(self, _ATTENTION_DIMS, 1)
        for optional in ("window_length", "loss_chunk"):
            if getattr(self, optional) is not None:
                check_integers(self, (optional,), 1)
        if self.gate_init_bias is not None:
            check_numbers(self, ("gate_init_bias",), -20, 20)  # beyond them, sigmoid is 0 or 1 in float32
        self._check_recurrence()

    def _check_lstm(self) -> None:
        allowed = lstm_fields() | {"recurrent_layers": (), "num_states": 0, "feedback": False}
        for field, value in allowed.items():
            if getattr(self, field):
                raise refuse(self, field, f"{value!r} with layer = 'lstm', which has no attention")

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
        """Non-negative indices of the recurrent layers."""
        return frozenset(index % self.num_layers for index in self.recurrent_layers)

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
