"""Results of an evaluation, as dataclasses, each in its own JSON file; docs/evaluation.md explains them.

The results of a comparison are in `comparison_results.py`.

Conventions: a *position* is the index of a token in its document, from 0. Token 0 is never scored, so scored positions
start at 1. Losses are in nats (natural logarithm) or bits (base 2). Every interval is a percentile bootstrap over
documents (see `records.Bootstrap`).
"""

import dataclasses
from typing import ClassVar, Literal

from block_recurrent.evaluation.records import Estimate, Result, Subject

AblationName = Literal["carried", "reset", "frozen", "shuffled", "initial", "window_only"]
Verdict = Literal["contributes", "negligible", "nothing", "no recurrence", "unknown"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores(Result):
    """`scores.json`: scores of a split. Every token except the first of a document is scored once, with carried state.

    Attributes:
        subject: the model.
        documents: scored documents, those with at least two tokens.
        tokens: scored tokens.
        bytes: UTF-8 bytes of the scored tokens.
        characters: Unicode code points of the scored tokens.
        words: denominator of `word_perplexity`.
        words_source: source of `words`: the data set's published count, or the count in the store.
        nats: total loss in nats.
        bits_per_token: bits / tokens.
        bits_per_byte: bits / bytes.
        bits_per_character: bits / characters.
        token_perplexity: exp(nats / tokens).
        word_perplexity: exp(nats / words).
    """

    FILE: ClassVar = "scores.json"

    subject: Subject
    documents: int
    tokens: int
    bytes: int
    characters: float
    words: int
    words_source: Literal["published", "store"]
    nats: float
    bits_per_token: Estimate
    bits_per_byte: Estimate
    bits_per_character: Estimate
    token_perplexity: Estimate
    word_perplexity: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialScores(Result):
    """`official.json`: scores by the official code's protocol, for comparison with its logs.

    They depend on the batch and are not exact. Every row contains `segments` segments; documents follow in the store's
    order, and start again after the last. The last target of every segment is masked, and so is every target with id 0
    or an input with id 0.

    Attributes:
        subject: the model.
        rows: rows of the batch.
        segment_length: tokens of a segment.
        segments: segments per row.
        passes: approximate number of passes over the split: scored tokens / scored tokens of one pass with these masks.
        tokens: scored tokens.
        nats: total loss in nats.
        bits_per_token: bits / tokens.
        token_perplexity: exp(nats / tokens).
    """

    FILE: ClassVar = "official.json"

    subject: Subject
    rows: int
    segment_length: int
    segments: int
    passes: float
    tokens: int
    nats: float
    bits_per_token: float
    token_perplexity: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bin:
    """Mean loss of the tokens with a position, or distance, from `low` to `high` - 1.

    Attributes:
        low: first position of the bin.
        high: one past the last position.
        documents: documents with tokens in the bin.
        tokens: tokens in the bin.
        bits_per_token: mean loss of the tokens.
    """

    low: int
    high: int
    documents: int
    tokens: int
    bits_per_token: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context(Result):
    """`context.json`: loss by length of the preceding context.

    Attributes:
        subject: the model.
        by_position: bins of the target's position, which equals the number of tokens since the initial state.
    """

    FILE: ClassVar = "context.json"

    subject: Subject
    by_position: tuple[Bin, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation:
    """Scores of the same model with changed recurrent states; the Transformer-XL caches are always carried.

    Attributes:
        name: the ablation.
        meaning: one sentence for the reader.
        after_tokens: tokens between two resets for `reset`, tokens before the freeze for `frozen`, else None.
        nats: total loss in nats.
        bits_per_token: bits / scored tokens.
        bits_per_byte: bits / bytes.
        cost: bits per byte above those of `carried`, paired by document; 0 for `carried`.
        by_position: bins of the target's position.
        by_distance: for `reset`, bins of the tokens since the last reset (1: the first target after it); else empty.
        carried_by_distance: the bins of `by_distance` with carried states; else empty.
    """

    name: AblationName
    meaning: str
    after_tokens: int | None
    nats: float
    bits_per_token: Estimate
    bits_per_byte: Estimate
    cost: Estimate
    by_position: tuple[Bin, ...]
    by_distance: tuple[Bin, ...] = ()
    carried_by_distance: tuple[Bin, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contribution:
    """Contribution of the carried states: the cost of the cheapest ablation that removes them.

    Attributes:
        verdict: `nothing` if the interval includes 0 or is below it; `negligible` if it lies above 0 but the
            contribution rounds to 0.00; `contributes` otherwise; `no recurrence` for a model without recurrent layers;
            `unknown` for a single document, which allows no interval.
        against: the cheapest of `initial`, `shuffled` and `window_only`; None without recurrence.
        bits_per_byte: cost of that ablation; None without recurrence.
        bits_per_token: cost of that ablation; None without recurrence.
        text: one line for the reader.
    """

    verdict: Verdict
    against: AblationName | None
    bits_per_byte: Estimate | None
    bits_per_token: Estimate | None
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablations(Result):
    """`ablations.json`: the state ablations of a model.

    Attributes:
        subject: the model.
        ablations: `carried` first; the only one for a model without recurrent layers.
        contribution: summary of the ablations.
        skipped: ablations that were not possible, with the reason.
    """

    FILE: ClassVar = "ablations.json"

    subject: Subject
    ablations: tuple[Ablation, ...]
    contribution: Contribution
    skipped: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedGate:
    """A constant gate, such as the fixed gate: state = g * state + (1 - g) * candidate, once per block.

    Attributes:
        place: position of the gate in the cell, such as `attention` or `mlp`.
        keep: (D,), g of each channel.
        half_life_tokens: (D,), tokens after which half of a channel's content is left: W ln(1/2) / ln(g).
    """

    place: str
    keep: tuple[float, ...]
    half_life_tokens: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTMGate:
    """Any other gate, such as the LSTM gate: state = f * state + i * candidate, once per block.

    Means and deviations are over blocks and state vectors; the half-life uses the geometric mean of f.

    Attributes:
        place: position of the gate in the cell, such as `attention` or `mlp`.
        forget_mean: (D,), mean of the forget gate f.
        forget_deviation: (D,), standard deviation of f.
        input_mean: (D,), mean of the input gate i.
        input_deviation: (D,), standard deviation of i.
        half_life_tokens: (D,), in tokens: W ln(1/2) / mean(ln f).
    """

    place: str
    forget_mean: tuple[float, ...]
    forget_deviation: tuple[float, ...]
    input_mean: tuple[float, ...]
    input_deviation: tuple[float, ...]
    half_life_tokens: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatePoint:
    """The states of one layer before a block of the document.

    Attributes:
        position: position of the block's first token.
        norm: mean norm of the S state vectors.
        change: relative change of the states by the block: |r' - r| / |r|.
        similarity_to_initial: cosine similarity of all states to the initial states.
        similarity_to_previous: cosine similarity to the states 1,000 tokens earlier (rounded to blocks); None before
            that position.
        states_share: share of the states in the output of attention, |cross| / (|self| + |cross|), mean over the
            block's tokens. Self- and cross-attention have separate softmaxes, so only their outputs are comparable.
        states_read: effective number of states that a token attends to, exp(entropy of its cross-attention), mean over
            tokens and heads; S for uniform attention.
        mass_on_previous_block: share of the states' attention to tokens that is on the previous block.
    """

    position: int
    norm: float
    change: float
    similarity_to_initial: float
    similarity_to_previous: float | None
    states_share: float
    states_read: float
    mass_on_previous_block: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerDiagnostics:
    """Diagnostics of one recurrent layer.

    Attributes:
        layer: index of the layer.
        fixed_gates: the gates that are constant and sum to 1.
        lstm_gates: the other gates, which depend on the input or have a separate input gate.
        states: the states before each block of the document.
    """

    layer: int
    fixed_gates: tuple[FixedGate, ...]
    lstm_gates: tuple[LSTMGate, ...]
    states: tuple[StatePoint, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnostics(Result):
    """`diagnostics.json`: gates and states on the longest document of a split.

    Attributes:
        subject: the model.
        document: name of the document.
        tokens: number of its tokens used.
        window_length: W.
        layers: the recurrent layers; empty for a model without them.
    """

    FILE: ClassVar = "diagnostics.json"

    subject: Subject
    document: str
    tokens: int
    window_length: int | None
    layers: tuple[LayerDiagnostics, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Scores of one checkpoint; the fields other than `step` are those of `Scores`.

    Attributes:
        step: training steps.
    """

    step: int
    bits_per_token: Estimate
    bits_per_byte: Estimate
    token_perplexity: Estimate
    word_perplexity: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve(Result):
    """`curve.json`: scores of all checkpoints of a run on one split.

    Attributes:
        subject: the newest checkpoint.
        points: one per checkpoint, the oldest first.
    """

    FILE: ClassVar = "curve.json"

    subject: Subject
    points: tuple[CurvePoint, ...]
