"""What an evaluation finds, as dataclasses, each with a JSON file of its own; docs/evaluation.md tells them in prose.

What a comparison of models finds is in `comparison.py`.

Conventions: a *position* is the index of a token in its document, from 0; token 0 is read and never scored, so scored
positions begin at 1. Bits are base-2 logarithms of probabilities, nats natural ones. Every interval is a percentile
bootstrap over documents (see `records.Bootstrap`).
"""

import dataclasses
from typing import ClassVar, Literal

from block_recurrent.evaluation.records import Estimate, Result, Subject

AblationName = Literal["carried", "reset", "frozen", "shuffled", "initial", "window_only"]
Verdict = Literal["contributes", "negligible", "nothing", "no recurrence", "unknown"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores(Result):
    """`scores.json`: every token of a split but each document's first, scored once, the state carried along.

    Attributes:
        subject: the model.
        documents: scored documents: those of two tokens and more.
        tokens: scored tokens.
        bytes: UTF-8 bytes that the scored tokens stand for.
        characters: Unicode code points that they stand for.
        words: what `word_perplexity` divides by.
        words_source: whether `words` is the data set's published count, or the store's own.
        nats: total cross-entropy.
        bits_per_token: bits over scored tokens.
        bits_per_byte: bits over bytes.
        bits_per_character: bits over characters.
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
    """`official.json`: the official code's numbers, which depend on the batch: to compare with its logs, not exact.

    Every row reads `segments` segments, documents in the store's order, from the beginning again after the last. The
    last target of every segment is left out, and every target whose id, or whose input's id, is 0.

    Attributes:
        subject: the model.
        rows: rows of the batch.
        segment_length: tokens of a segment.
        segments: segments that each row reads.
        passes: scored tokens over those that one pass with the same masks would score, about; above 1 the split was
            read more than once.
        tokens: scored tokens.
        nats: total cross-entropy.
        bits_per_token: bits over scored tokens.
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
    """Tokens whose position, or distance, lies from `low` to `high` - 1.

    Attributes:
        low: first position.
        high: one past the last.
        documents: with such tokens.
        tokens: such tokens.
        bits_per_token: their mean cross-entropy.
    """

    low: int
    high: int
    documents: int
    tokens: int
    bits_per_token: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context(Result):
    """`context.json`: loss by how much of the document came before.

    Attributes:
        subject: the model.
        by_position: bins of the target's position, which is also the number of tokens since the start of the state.
    """

    FILE: ClassVar = "context.json"

    subject: Subject
    by_position: tuple[Bin, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation:
    """The same model, with its recurrent states tampered with; the Transformer-XL caches are carried in all of them.

    Attributes:
        name: which.
        meaning: one sentence.
        after_tokens: of `reset`, tokens between two resets; of `frozen`, tokens after which the states stay; else None.
        nats: total cross-entropy.
        bits_per_token: bits over scored tokens.
        bits_per_byte: bits over bytes.
        cost: bits per byte above those of `carried`, paired by document; of `carried` itself 0.
        by_position: bins of the target's position.
        by_distance: of `reset`, bins of the tokens since the last reset (1: the first target after it); else empty.
        carried_by_distance: the same tokens with the state carried; else empty.
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
    """What carrying recurrent states is worth: the cheapest of the ablations that take the memory away, less `carried`.

    Attributes:
        verdict: `contributes`; `nothing` where the interval reaches down to 0; `negligible` where it does not, but the
            difference is 0.00 with two decimals; `no recurrence` for a model with caches alone; `unknown` where a
            single document allows no interval.
        against: that ablation: `initial`, `shuffled` or `window_only`; None without recurrence.
        bits_per_byte: the difference; None without recurrence.
        bits_per_token: likewise.
        text: one line for people.
    """

    verdict: Verdict
    against: AblationName | None
    bits_per_byte: Estimate | None
    bits_per_token: Estimate | None
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablations(Result):
    """`ablations.json`.

    Attributes:
        subject: the model.
        ablations: `carried` first; nothing else for a model without recurrent layers.
        contribution: the summary.
        skipped: ablations that were not possible, and why.
    """

    FILE: ClassVar = "ablations.json"

    subject: Subject
    ablations: tuple[Ablation, ...]
    contribution: Contribution
    skipped: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedGate:
    """A gate that is a constant per channel: state = g * state + (1 - g) * candidate, once a block.

    Attributes:
        place: `attention` or `mlp`: which of a cell's gates.
        keep: (D,) g of each channel.
        half_life_tokens: (D,) tokens after which half of a channel's content is left: W ln(1/2) / ln(g).
    """

    place: Literal["attention", "mlp"]
    keep: tuple[float, ...]
    half_life_tokens: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTMGate:
    """A gate that looks at what was read: state = f * state + i * candidate, once a block.

    Means and deviations go over blocks and state vectors; the half-life is that of the geometric mean of f.

    Attributes:
        place: `attention` or `mlp`.
        forget_mean: (D,) mean of f.
        forget_deviation: (D,) standard deviation of f.
        input_mean: (D,) mean of i.
        input_deviation: (D,) standard deviation of i.
        half_life_tokens: (D,) tokens: W ln(1/2) / mean(ln f).
    """

    place: Literal["attention", "mlp"]
    forget_mean: tuple[float, ...]
    forget_deviation: tuple[float, ...]
    input_mean: tuple[float, ...]
    input_deviation: tuple[float, ...]
    half_life_tokens: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatePoint:
    """The states of one layer before a block of the document.

    Attributes:
        position: first token of the block.
        norm: mean length of the S state vectors.
        change: length of the change that the block makes, over the length of the state before: |r' - r| / |r|.
        similarity_to_initial: cosine of all states with the initial ones.
        similarity_to_previous: cosine with the states a thousand tokens before (rounded to blocks); None before that.
        states_share: how much of what attention adds to the residual stream comes from the states:
            |cross| / (|self| + |cross|), mean over the block's tokens. Self- and cross-attention have a softmax each,
            so their weights cannot be compared; what they add to the stream can.
        states_read: effective number of states that a token reads: exp(entropy of its cross-attention), mean over
            tokens and heads; S where attention is uniform.
        mass_on_previous_block: share of the states' attention to tokens that falls on the block before this one.
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
    """One recurrent layer.

    Attributes:
        layer: its index.
        fixed_gates: of cells with fixed gates, else empty.
        lstm_gates: of cells with lstm gates, else empty.
        states: through the document, block after block.
    """

    layer: int
    fixed_gates: tuple[FixedGate, ...]
    lstm_gates: tuple[LSTMGate, ...]
    states: tuple[StatePoint, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnostics(Result):
    """`diagnostics.json`: gates and states, watched while the longest document is read.

    Attributes:
        subject: the model.
        document: that document's name.
        tokens: how many of its tokens were read.
        window_length: W.
        layers: recurrent layers; empty for a model without.
    """

    FILE: ClassVar = "diagnostics.json"

    subject: Subject
    document: str
    tokens: int
    window_length: int | None
    layers: tuple[LayerDiagnostics, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One checkpoint.

    Attributes:
        step: training steps taken.
        bits_per_token: as in `Scores`, likewise the rest.
    """

    step: int
    bits_per_token: Estimate
    bits_per_byte: Estimate
    token_perplexity: Estimate
    word_perplexity: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve(Result):
    """`curve.json`: all checkpoints that a run still has, on one split.

    Attributes:
        subject: the newest.
        points: from the oldest.
    """

    FILE: ClassVar = "curve.json"

    subject: Subject
    points: tuple[CurvePoint, ...]
