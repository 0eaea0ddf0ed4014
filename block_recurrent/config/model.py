"""Configuration of the model."""

import dataclasses
from typing import Any, Literal

from block_recurrent.validation import check_booleans, check_choices, check_integers, check_numbers, refuse

Layer = Literal["transformer", "lstm"]
Cell = Literal["dual", "single", "skip"]
Gate = Literal["fixed", "lstm"]
GateEquations = Literal["official", "paper"]
ActivationDType = Literal["float32", "bfloat16"]
Remat = Literal["none", "dots", "full"]

# When a field may have another value: a run is resumed; a run begins with the parameters of another model; a saved
# decoding state is loaded.
Purpose = Literal["resume", "init_from", "saved_state"]
_EXECUTION = {"may_differ": ("resume", "init_from", "saved_state")}  # how the model is computed, not what
_DROPOUT = {"may_differ": ("init_from", "saved_state")}
_PRECISION = {"may_differ": ("init_from",)}

_ATTENTION_DIMS = ("num_heads", "head_dim", "mlp_dim")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the model computes. Segment length and batch size belong to the data, not to the model.

    Attributes:
        vocab_size: V, rows of the embedding table, which is also the output layer.
        embed_dim: D, the width of the residual stream and of a state vector.
        num_layers: how many layers, recurrent ones included.
        num_heads: N, attention heads; with `layer = "lstm"` this and the next two are 0.
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
    num_heads: int
    head_dim: int
    mlp_dim: int
    window_length: int | None
    layer: Layer = "transformer"
    recurrent_layers: tuple[int, ...] = ()
    num_states: int = 0
    cell: Cell = "skip"
    gate: Gate = "fixed"
    feedback: bool = False
    gate_equations: GateEquations = "official"
    dropout_rate: float = dataclasses.field(default=0.0, metadata=_DROPOUT)
    attention_dropout_rate: float = dataclasses.field(default=0.0, metadata=_DROPOUT)
    dtype: ActivationDType = dataclasses.field(default="float32", metadata=_PRECISION)
    remat: Remat = dataclasses.field(default="none", metadata=_EXECUTION)
    scan_layers: bool = dataclasses.field(default=False, metadata=_EXECUTION)
    loss_chunk: int | None = dataclasses.field(default=None, metadata=_EXECUTION)

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
        """The recurrent layers' indices, all non-negative."""
        return frozenset(index % self.num_layers for index in self.recurrent_layers)

    @property
    def feedback_index(self) -> int:
        """With feedback, the layer whose state is broadcast: of several recurrent layers the last one."""
        return max(self.recurrent_indices)


def fields_that_may_differ(purpose: Purpose) -> frozenset[str]:
    """Names of the fields of `ModelConfig` that may have another value for this purpose."""
    fields = dataclasses.fields(ModelConfig)
    return frozenset(field.name for field in fields if purpose in field.metadata.get("may_differ", ()))


def lstm_fields() -> dict[str, Any]:
    """The fields that have no meaning with `layer = "lstm"`, at the only values that are allowed there."""
    return dict.fromkeys(_ATTENTION_DIMS, 0) | {"window_length": None}
