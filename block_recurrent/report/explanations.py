"""Sentences that explain numbers of a model that seem to disagree."""

import statistics
from collections.abc import Iterator

from block_recurrent.evaluation.comparison_results import Comparison, Difference
from block_recurrent.evaluation.results import Ablations, Diagnostics
from block_recurrent.evaluation.run_results import ResultSet, SplitResults

_CLEAR_COST = 0.005  # bits per byte; smaller ones round to 0.00
_CLEAR_SHARE = 0.05
_CARRIES_NOTHING = ("nothing", "negligible")
_SERVES = {
    "initial": "the trained initial states, the same for every document,",
    "shuffled": "the states of another document at the same position",
}


def explanations(results: ResultSet, evaluated: SplitResults) -> list[str]:
    """Returns the explanations for a model on a split; empty if its numbers agree at first sight.

    Args:
        results: all results of the page, for the comparisons.
        evaluated: the model's results.
    """
    study = evaluated.ablations
    if study is None or study.contribution.bits_per_byte is None:
        return []
    sentences = [_attended_to(study, evaluated.diagnostics)]
    sentences += [_compared(results, study, *found) for found in _against_no_recurrence(results, evaluated)]
    return [sentence for sentence in sentences if sentence]


def _attended_to(study: Ablations, diagnostics: Diagnostics | None) -> str:
    """Explains states that tokens attend to, although nothing about the document is carried in them."""
    if study.contribution.verdict not in _CARRIES_NOTHING:
        return ""
    costs = {item.name: item.cost.value for item in study.ablations}
    share = _share(diagnostics)
    attended = f"attend to the state vectors ({share:.0%} of attention's output)" if share else "use the state vectors"
    against = study.contribution.against
    if costs.get("window_only", 0) >= _CLEAR_COST and against in _SERVES:
        return (
            f"Tokens {attended}, and hiding the vectors from them costs {costs['window_only']:.4f} bits per byte. But "
            f"{_SERVES[against]} serve as well (cost {costs[against]:.4f}): the vectors are used, and carry next to "
            "nothing about this document. See Ablations."
        )
    if share >= _CLEAR_SHARE:
        return f"Tokens {attended}, but lose next to nothing without them. See Ablations."
    return ""


def _share(diagnostics: Diagnostics | None) -> float:
    """Returns the largest mean share of the states in attention's output, over the recurrent layers."""
    layers = diagnostics.layers if diagnostics is not None else ()
    return max((statistics.fmean(point.states_share for point in layer.states) for layer in layers), default=0.0)


def _against_no_recurrence(results: ResultSet, evaluated: SplitResults) -> Iterator[tuple[Comparison, Difference]]:
    """Yields the comparisons of a model with a baseline without recurrent layers, on the same tokens."""
    scores = evaluated.scores
    for comparison in results.comparisons:
        if (
            comparison.data.fingerprint == scores.data.fingerprint
            and not comparison.baseline.config["recurrent_layers"]
        ):
            for difference in comparison.differences:
                if difference.subject.fingerprint == scores.subject.fingerprint:
                    yield comparison, difference


def _compared(results: ResultSet, study: Ablations, comparison: Comparison, difference: Difference) -> str:
    """Explains a contribution of the state that differs from the advantage over a model without recurrence."""
    gain = difference.improvement_per_byte
    if gain.low is None or gain.high is None:
        return ""
    baseline = results.name_of(comparison.baseline)
    if study.contribution.verdict in _CARRIES_NOTHING and gain.low > 0:
        return (
            f"It is better than {baseline} by {gain.value:.4f} bits per byte, but not because of what its state "
            "carries; the two also differ in their parameters."
        )
    if study.contribution.verdict == "contributes" and gain.low <= 0:
        relation = "worse than" if gain.high < 0 else "no better than"
        return (
            f"It is {relation} {baseline}, although its state contributes: the contribution compares this model with "
            "itself without carried states, the comparison with a model that was trained without them."
        )
    return ""
