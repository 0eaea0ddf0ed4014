"""State ablations: the same parameters, with the recurrent states reset, frozen, exchanged or not attended to."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from block_recurrent.config import ModelConfig
from block_recurrent.data.store.excerpt import Split
from block_recurrent.evaluation import interventions
from block_recurrent.evaluation.records import Bootstrap, Estimate
from block_recurrent.evaluation.results import Ablation, AblationName, Contribution
from block_recurrent.evaluation.scorer import ScoringMethod
from block_recurrent.evaluation.scores import bits_per, by_distance, by_position, scored_text
from block_recurrent.evaluation.token_losses import TokenLosses

# Ablations that leave a model no information about a document except through its windows and caches.
WITHOUT_STATES: tuple[AblationName, ...] = ("initial", "shuffled", "window_only")
ROUNDS_TO_NOTHING = 0.005  # bits per byte: 0.00 with two decimals


@dataclasses.dataclass(frozen=True)
class PlannedAblation:
    """An ablation to run.

    Attributes:
        name: the ablation.
        method: scoring method.
        meaning: one sentence for the reader of the results.
        after_tokens: as in `results.Ablation`.
    """

    name: AblationName
    method: ScoringMethod
    meaning: str
    after_tokens: int | None = None


def plan(
    config: ModelConfig, store: Split, *, reset_tokens: int, frozen_tokens: int
) -> tuple[list[PlannedAblation], dict[str, str]]:
    """Returns the ablations that a model and a split allow.

    Args:
        config: the model.
        store: the split.
        reset_tokens: tokens between two resets; a multiple of W.
        frozen_tokens: tokens of a document after which the states no longer change; a multiple of W.

    Returns:
        The ablations to run, and the reason for each ablation that is not possible, by name.
    """
    if not config.recurrent_layers or config.window_length is None:
        return [], {}
    window = config.window_length
    planned = [
        PlannedAblation(
            "reset",
            interventions.reset(config, every_blocks=reset_tokens // window),
            f"the states are reset every {reset_tokens:,} tokens",
            reset_tokens,
        ),
        PlannedAblation(
            "frozen",
            interventions.frozen(config, after_blocks=frozen_tokens // window),
            f"the states no longer change after {frozen_tokens:,} tokens of a document",
            frozen_tokens,
        ),
        PlannedAblation(
            "initial",
            interventions.frozen(config, after_blocks=0, name="initial"),
            "tokens always attend to the trained initial states",
        ),
        PlannedAblation(
            "window_only",
            interventions.window_only(config),
            "tokens do not attend to the states; only windows and caches are left",
        ),
    ]
    if config.depends_on_segments:
        reason = "runs block by block, but the external memory is written segment by segment"
        by_block = ("reset", "frozen", "initial", "shuffled")
        return [item for item in planned if item.name not in by_block], dict.fromkeys(by_block, reason)
    if (store.lengths > 1).sum() < 2:
        return planned, {"shuffled": "needs at least two documents"}
    exchanged = PlannedAblation(
        "shuffled",
        interventions.shuffled(config, store),
        "tokens attend to the states of another document at the same position",
    )
    return [*planned, exchanged], {}


class AblationResults:
    """Turns the token losses of ablations into results.

    Args:
        store: the split.
        carried: token losses of the unchanged model.
        bootstrap: settings of the confidence intervals.
    """

    def __init__(self, store: Split, carried: TokenLosses, bootstrap: Bootstrap):
        self._text = scored_text(store)
        self._carried, self._bootstrap = carried, bootstrap
        self._carried_sums = carried.sums()[self._text.documents]

    def carried(self) -> Ablation:
        """Returns the result of the unchanged model, the first of the ablations."""
        return self._result("carried", "the states are carried from segment to segment", None, self._carried)

    def ablation(self, planned: PlannedAblation, losses: TokenLosses) -> Ablation:
        """Returns the result of one ablation, compared with the unchanged model."""
        result = self._result(planned.name, planned.meaning, planned.after_tokens, losses)
        if planned.name != "reset" or planned.after_tokens is None:
            return result
        return dataclasses.replace(
            result,
            by_distance=by_distance(losses, planned.after_tokens, self._bootstrap),
            carried_by_distance=by_distance(self._carried, planned.after_tokens, self._bootstrap),
        )

    def cost_per_token(self, losses: TokenLosses) -> Estimate:
        """Returns the bits per token above those of the unchanged model, paired by document."""
        return bits_per(self._sums(losses) - self._carried_sums, self._text.tokens, self._bootstrap)

    def _sums(self, losses: TokenLosses) -> np.ndarray:
        return losses.sums()[self._text.documents]

    def _result(self, name: AblationName, meaning: str, after_tokens: int | None, losses: TokenLosses) -> Ablation:
        sums = self._sums(losses)
        return Ablation(
            name=name,
            meaning=meaning,
            after_tokens=after_tokens,
            nats=float(sums.sum()),
            bits_per_token=bits_per(sums, self._text.tokens, self._bootstrap),
            bits_per_byte=bits_per(sums, self._text.bytes, self._bootstrap),
            cost=bits_per(sums - self._carried_sums, self._text.bytes, self._bootstrap),
            by_position=by_position(losses, self._bootstrap),
        )


def run_ablations(
    planned: list[PlannedAblation],
    carried: TokenLosses,
    store: Split,
    bootstrap: Bootstrap,
    run: Callable[[ScoringMethod], TokenLosses],
) -> Iterator[tuple[Ablation, TokenLosses, Estimate]]:
    """Runs the ablations one after another, the unchanged model first.

    Yields:
        The result, its token losses, and its cost in bits per token.
    """
    results = AblationResults(store, carried, bootstrap)
    yield results.carried(), carried, Estimate(value=0.0)
    for item in planned:
        losses = run(item.method)
        yield results.ablation(item, losses), losses, results.cost_per_token(losses)


def contribution(ablations: list[tuple[Ablation, Estimate]]) -> Contribution:
    """Returns the contribution of the recurrent states: the cost of the cheapest ablation that removes them.

    The cheapest is the cautious choice: tokens may depend on states that never change. Such a model loses when the
    states are not attended to, but nothing when they are exchanged for those of another document.

    Args:
        ablations: each with its cost in bits per token.
    """
    without = [pair for pair in ablations if pair[0].name in WITHOUT_STATES]
    if not without:
        text = "no recurrent layers: this model carries context only in its Transformer-XL caches"
        return Contribution(verdict="no recurrence", against=None, bits_per_byte=None, bits_per_token=None, text=text)
    cheapest, per_token = min(without, key=lambda pair: pair[0].cost.value)
    cost = cheapest.cost
    if cost.low is None or cost.high is None:
        verdict, text = "unknown", f"state contributes {cost.value:.4f} bits per byte (one document: no interval)"
    elif cost.low <= 0 or cost.value < ROUNDS_TO_NOTHING:
        verdict = "nothing" if cost.low <= 0 else "negligible"
        text = f"state contributes 0.00 bits per byte: {_interval(cost)} against `{cheapest.name}` ({cheapest.meaning})"
    else:
        verdict = "contributes"
        text = f"state contributes {_interval(cost)} bits per byte, against `{cheapest.name}` ({cheapest.meaning})"
    return Contribution(verdict=verdict, against=cheapest.name, bits_per_byte=cost, bits_per_token=per_token, text=text)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
