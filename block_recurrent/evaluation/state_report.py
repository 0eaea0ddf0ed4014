"""State reports of a run in training: whether the recurrent states are used, measured on held-out text.

The numbers are those of `evaluate --ablations --diagnostics` (docs/evaluation.md), on an excerpt of the held-out split.
"""

import dataclasses
import functools
import statistics
from typing import Any

import jax
import numpy as np

from block_recurrent.config import EvaluationConfig, RunConfig
from block_recurrent.data.store.excerpt import Excerpt
from block_recurrent.data.store.open_split import open_split
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError
from block_recurrent.evaluation import ablations, provenance
from block_recurrent.evaluation.ablations import ROUNDS_TO_NOTHING
from block_recurrent.evaluation.diagnostics import watch
from block_recurrent.evaluation.passes import Shape, score_split
from block_recurrent.evaluation.records import Estimate
from block_recurrent.evaluation.results import Ablation, Contribution, LayerDiagnostics
from block_recurrent.evaluation.scorer import carried
from block_recurrent.model.half_lives import half_life_metrics
from block_recurrent.model.language_model import layer_name
from block_recurrent.parallel.placement import Placement
from block_recurrent.parallel.sharding import make_mesh
from block_recurrent.training.actions import Measured
from block_recurrent.training.step import TrainState
from block_recurrent.typing import Params

GROUP = "states"  # of the lines in `metrics.jsonl`
_NOT_RUN = ("frozen",)  # says how long a state takes to fill, not whether it is used


def make_state_reports(run: RunConfig) -> "list[StateReport]":
    """Returns the action that reports on the states of a run, for `train(..., actions=...)`; empty if it has none.

    Args:
        run: the configuration. There are no reports if `TrainConfig.state_report_every` is None or the model has no
            recurrent layers.

    Raises:
        InputError: the held-out split is missing, damaged or without a token to score, there are several processes, or
            the model has an external memory that is written segment by segment.
    """
    if run.train.state_report_every is None or not run.model.recurrent_layers:
        return []
    if jax.process_count() > 1:
        raise InputError(
            f"TrainConfig.state_report_every = {run.train.state_report_every}: must be None with several processes "
            f"({jax.process_count()} here); `evaluate --ablations --diagnostics` measures the same on a checkpoint"
        )
    if run.model.depends_on_segments:
        raise InputError(
            f"TrainConfig.state_report_every = {run.train.state_report_every}: must be None with recurrent layers and "
            "ModelConfig.memory_layers: the reports run block by block, but the memory is written segment by segment"
        )
    store = open_split(run.data, run.data.eval_split, vocab_size=run.model.vocab_size)
    return [StateReport(run, store)]


class StateReport:
    """Measures, every `TrainConfig.state_report_every` steps, what the recurrent states contribute on held-out text.

    An `Action`. Its programs compile during the first report; nothing is compiled or read before that.

    Args:
        run: the configuration; `TrainConfig.state_report_every` is set and the model has recurrent layers.
        store: the held-out split.

    Raises:
        InputError: no document has two tokens.
    """

    def __init__(self, run: RunConfig, store: TokenStore):
        settings, segment = run.train, run.data.segment_length
        if not (store.lengths > 1).any():
            raise InputError(f"{store.path}: no document has two tokens, so there is nothing to score")
        run = dataclasses.replace(run, model=run.model.without_kernels())  # scoring does not divide kernels
        self._run, self._segment = run, segment
        # One token more than the segments: the last token of a segment predicts the token after it.
        tokens = settings.state_report_segments * segment + 1
        self._excerpt = Excerpt.longest(store, documents=settings.state_report_documents, tokens=tokens)
        self._bootstrap = provenance.describe_bootstrap(EvaluationConfig())
        # Planned once: a new plan would compile its methods again.
        planned, _ = ablations.plan(run.model, self._excerpt, reset_tokens=segment, frozen_tokens=segment)
        self._planned = [item for item in planned if item.name not in _NOT_RUN]
        self._carried = carried(run.model)

    def due(self, step: int) -> bool:
        """Returns whether a report belongs to this step: at the start, at the end, and at every multiple."""
        settings = self._run.train
        assert settings.state_report_every is not None
        return step % settings.state_report_every == 0 or step == settings.num_steps

    def run(self, step: int, state: TrainState) -> Measured:
        """Scores the excerpt with and without the states, and watches them over its longest document."""
        placement = Placement(list(make_mesh(self._run.mesh).devices.flat))
        params = placement.put_params(state.params)
        costs, contribution = self._ablate(params, placement)
        layers = self._watch(params)
        dead = is_dead(contribution) if step >= self._run.train.state_dead_after else None
        text = f"{contribution.text}; a reset every {self._segment:,} tokens costs {_text(costs['reset'].cost)}"
        scope = f"{self._tokens:,} scored tokens of {len(self._excerpt.lengths)} documents"
        sentences = [f"{text} ({scope})"]
        if dead:
            sentences.append(
                f"the recurrent state is dead: after {step:,} steps it carries nothing that helps with held-out text, "
                f"because {_reason(costs, contribution)}; docs/recurrence.md says where to look"
            )
        values = self._values(costs, contribution) | {"dead": None if dead is None else int(dead)}
        return Measured(group=GROUP, values=values | _layer_values(layers), sentences=tuple(sentences))

    @property
    def _tokens(self) -> int:
        return int(np.maximum(self._excerpt.lengths - 1, 0).sum())

    def _ablate(self, params: Params, placement: Placement) -> tuple[dict[str, Ablation], Contribution]:
        shape = Shape(batch_size=self._run.data.batch_size, segment_length=self._segment)
        score = functools.partial(score_split, params=params, split=self._excerpt, shape=shape, placement=placement)
        found = ablations.run_ablations(self._planned, score(self._carried), self._excerpt, self._bootstrap, score)
        results = [(result, per_token) for result, _, per_token in found]
        return {result.name: result for result, _ in results}, ablations.contribution(results)

    def _watch(self, params: Params) -> tuple[LayerDiagnostics, ...]:
        longest = int(np.argmax(self._excerpt.lengths))
        (tokens,) = self._excerpt.read_many([(longest, 0, int(self._excerpt.lengths[longest]))])
        if len(tokens) < (self._run.model.window_length or 0):
            return ()
        return watch(self._run.model, params, tokens, lambda done, total: None)

    def _values(self, costs: dict[str, Ablation], contribution: Contribution) -> dict[str, Any]:
        assert contribution.bits_per_byte is not None  # the model has recurrent layers
        values: dict[str, Any] = {
            "documents": len(self._excerpt.lengths),
            "tokens": self._tokens,
            "carried_bits_per_byte": costs["carried"].bits_per_byte.value,
            "contribution_against": contribution.against,
            "verdict": contribution.verdict,
            **_interval("contribution_bits_per_byte", contribution.bits_per_byte),
        }
        for item in self._planned:
            values |= _interval(f"cost_bits_per_byte/{item.name}", costs[item.name].cost)
        return values


def is_dead(contribution: Contribution) -> bool:
    """Returns whether the states carry nothing: the verdict is `nothing` or `negligible` (docs/evaluation.md).

    The cost of a reset plays no part. Tokens may depend on states that are the same in every document; then a reset is
    expensive, although the states carry nothing.

    Args:
        contribution: of a model with recurrent layers. Without an interval its value decides.
    """
    gain = contribution.bits_per_byte
    assert gain is not None
    return gain.value < ROUNDS_TO_NOTHING or (gain.low is not None and gain.low <= 0)


def _reason(costs: dict[str, Ablation], contribution: Contribution) -> str:
    if costs["window_only"].cost.value < ROUNDS_TO_NOTHING:
        return "hiding the states from the tokens costs nothing"
    serves = "the trained initial states serve" if contribution.against == "initial" else "another document's serve"
    return f"tokens use the states, but {serves} as well"


def _layer_values(layers: tuple[LayerDiagnostics, ...]) -> dict[str, Any]:
    """Returns means over the blocks of the watched document, and the half-lives of lstm gates over its channels."""
    values: dict[str, Any] = {}
    for layer in layers:
        name = layer_name(layer.layer)
        values |= {
            f"state_norm/{name}": statistics.fmean(point.norm for point in layer.states),
            f"state_change/{name}": statistics.fmean(point.change for point in layer.states),
            f"states_share/{name}": statistics.fmean(point.states_share for point in layer.states),
            f"states_read/{name}": statistics.fmean(point.states_read for point in layer.states),
        }
        half_lives = {f"{name}/{gate.place}": np.array(gate.half_life_tokens) for gate in layer.lstm_gates}
        values |= half_life_metrics(half_lives)
    return values


def _interval(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: estimate.value, f"{name}/low": estimate.low, f"{name}/high": estimate.high}


def _text(estimate: Estimate) -> str:
    interval = "" if estimate.low is None else f" [{estimate.low:.4f}, {estimate.high:.4f}]"
    return f"{estimate.value:.4f}{interval}"
