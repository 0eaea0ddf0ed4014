"""Judges the paper's claims by the laptop's results, with rules fixed before any result existed."""

import dataclasses
import statistics
from typing import Any, Literal

import numpy as np

from block_recurrent.evaluation.ablations import WITHOUT_STATES
from block_recurrent.evaluation.bootstrap import ratio_estimate
from block_recurrent.evaluation.records import Bootstrap, Estimate
from experiments.laptop.table import REC, SLIDE, XL_4W

Verdict = Literal["shown", "not shown", "opposite", "missing"]
Results = dict[str, list[dict[str, Any]]]  # by row, one result for each seed

ABOUT_EQUAL = 1.10  # largest ratio of step times that counts as equal cost
HALF = 0.5
WORTHWHILE = 0.02  # bits per byte
_BOOTSTRAP = Bootstrap(replicates=10_000, level=0.95, seed=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper and its verdict.

    Attributes:
        text: the claim.
        rule: condition under which the claim counts as shown.
        verdict: result of the rule; `opposite` if the whole interval is on the other side of 0.
        figures: the numbers that decide the verdict.
    """

    text: str
    rule: str
    verdict: Verdict
    figures: str


def judge(results: Results, seconds_per_step: dict[str, float]) -> list[Claim]:
    """Judges the claims.

    Args:
        results: result files of `experiments.tables.run_table`, by row.
        seconds_per_step: by row, from `experiments.laptop.step_times`; empty if it has not run.
    """
    return [
        _better_than(
            SLIDE,
            ABOUT_EQUAL,
            "Recurrence is better than one additional layer, at about equal cost.",
            results,
            seconds_per_step,
        ),
        _better_than(
            XL_4W,
            HALF,
            "Recurrence is better than Transformer-XL with four times the window, at half its step time or less.",
            results,
            seconds_per_step,
        ),
        _reset_costs(results),
        _state_contributes(results),
    ]


def difference(results: Results, row: str, other: str) -> Estimate | None:
    """Returns the difference in bits per byte of two rows, each averaged over its seeds, paired by document."""
    if not results.get(row) or not results.get(other):
        return None
    bits = _bits_by_document(results[row]) - _bits_by_document(results[other])
    return ratio_estimate(bits, np.array(results[row][0]["documents"]["bytes"], float), _BOOTSTRAP)


def _better_than(other: str, max_cost: float, text: str, results: Results, seconds: dict[str, float]) -> Claim:
    rule = (
        "every seed is below every seed of the other row, and the interval of the difference of the means is below 0; "
        f"step time at most {max_cost:g} times the other row's"
    )
    found = difference(results, REC, other)
    if found is None or found.low is None or found.high is None or not {REC, other} <= set(seconds):
        return Claim(text=text, rule=rule, verdict="missing", figures="some results are missing")
    cost = seconds[REC] / seconds[other]
    ours, theirs = ([_total(result) for result in results[row]] for row in (REC, other))
    figures = f"{_interval(found)} bits per byte against {other}, at {cost:.2f} times its step time; worst seed "
    figures += f"{max(ours):.4f}, best seed of {other} {min(theirs):.4f}"
    better = found.high < 0 and max(ours) < min(theirs)
    verdict = "shown" if better and cost <= max_cost else "opposite" if found.low > 0 else "not shown"
    return Claim(text=text, rule=rule, verdict=verdict, figures=figures)


def _reset_costs(results: Results) -> Claim:
    text = "Resetting the state at every segment increases the loss."
    rule = "for every seed the interval of the increase, paired by document, is above 0"
    costs = [r["ablations"]["reset"]["cost_bits_per_byte"] for r in results.get(REC, ()) if "reset" in r["ablations"]]
    if not costs:
        return Claim(text=text, rule=rule, verdict="missing", figures="some results are missing")
    estimates = [Estimate(**cost) for cost in costs]
    lows, highs = [e.low or 0.0 for e in estimates], [e.high or 0.0 for e in estimates]
    verdict = "shown" if min(lows) > 0 else "opposite" if max(highs) < 0 else "not shown"
    figures = "; ".join(f"{_interval(e)} bits per byte" for e in estimates)
    return Claim(text=text, rule=rule, verdict=verdict, figures=figures)


def _state_contributes(results: Results) -> Claim:
    text = f"The recurrent state contributes at least {WORTHWHILE:g} bits per byte."
    rule = (
        "for every seed, of the ablations initial, shuffled and window_only the cheapest costs that much, and its "
        "interval is above 0"
    )
    found = [r["ablations"] for r in results.get(REC, ()) if set(WITHOUT_STATES) <= set(r["ablations"])]
    if not found:
        return Claim(text=text, rule=rule, verdict="missing", figures="some results are missing")
    costs = [[Estimate(**ablations[name]["cost_bits_per_byte"]) for name in WITHOUT_STATES] for ablations in found]
    estimates = [min(of_seed, key=lambda cost: cost.value) for of_seed in costs]
    shown = all(e.value >= WORTHWHILE and (e.low or 0.0) > 0 for e in estimates)
    verdict = "shown" if shown else "opposite" if all((e.high or 0.0) < 0 for e in estimates) else "not shown"
    figures = "; ".join(f"{_interval(e)} bits per byte" for e in estimates)
    return Claim(text=text, rule=rule, verdict=verdict, figures=figures)


def _bits_by_document(seeds: list[dict[str, Any]]) -> np.ndarray:
    return np.mean([result["documents"]["nats"] for result in seeds], axis=0) / np.log(2)


def _total(result: dict[str, Any]) -> float:
    return result["evaluation"]["bits_per_byte"]["value"]


def mean_bits(seeds: list[dict[str, Any]]) -> float:
    """Returns bits per byte, averaged over seeds."""
    return statistics.mean(_total(result) for result in seeds)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}]"
