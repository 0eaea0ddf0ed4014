"""Sentences about numbers that seem to disagree, each for the numbers that it is about and for no others."""

import dataclasses

import pytest

from block_recurrent.evaluation.ablations import contribution
from block_recurrent.evaluation.records import Estimate
from block_recurrent.evaluation.run_results import ResultSet, SplitResults
from block_recurrent.report.explanations import explanations


def with_costs(evaluated: SplitResults, **costs: float) -> SplitResults:
    """Returns results whose ablations have the given costs in bits per byte, with narrow intervals."""
    study = evaluated.ablations
    assert study is not None
    changed = [
        dataclasses.replace(item, cost=Estimate(value=v, low=v - 1e-4, high=v + 1e-4))
        for item in study.ablations
        if (v := costs.get(item.name)) is not None
    ]
    summary = contribution([(item, item.cost) for item in changed])
    return dataclasses.replace(
        evaluated, ablations=dataclasses.replace(study, ablations=tuple(changed), contribution=summary)
    )


def gained(results: ResultSet, value: float) -> ResultSet:
    """Returns results whose comparison with the model without recurrence has this improvement."""
    (comparison,) = results.comparisons
    (difference,) = comparison.differences
    gain = Estimate(value=value, low=value - 0.01, high=value + 0.01)
    difference = dataclasses.replace(difference, improvement_per_byte=gain)
    return dataclasses.replace(results, comparisons=(dataclasses.replace(comparison, differences=(difference,)),))


@pytest.fixture
def evaluated(results) -> SplitResults:
    return results.runs[0].evaluations[0]


@pytest.mark.parametrize(
    ("costs", "start"),
    [
        ({"initial": 0.0, "shuffled": 0.2, "window_only": 0.1}, "the trained initial states"),
        ({"initial": 0.2, "shuffled": 0.001, "window_only": 0.1}, "the states of another document"),
    ],
)
def test_states_that_are_used_and_carry_nothing(results, evaluated, costs, start):
    alone = dataclasses.replace(results, comparisons=())
    (sentence,) = explanations(alone, with_costs(evaluated, **costs))
    assert "hiding the vectors from them costs 0.1000 bits per byte" in sentence
    assert f"But {start}" in sentence
    assert "% of attention's output" in sentence
    without = dataclasses.replace(with_costs(evaluated, **costs), diagnostics=None)
    assert "Tokens use the state vectors" in explanations(alone, without)[0]


def test_states_with_a_share_of_attention_that_nothing_depends_on(results, evaluated):
    alone = dataclasses.replace(results, comparisons=())
    costs = {"initial": 0.0, "shuffled": 0.0, "window_only": 0.0}
    (sentence,) = explanations(alone, with_costs(evaluated, **costs))
    assert sentence.endswith("lose next to nothing without them. See Ablations.")
    assert explanations(alone, dataclasses.replace(with_costs(evaluated, **costs), diagnostics=None)) == []


def test_the_contribution_and_the_comparison_with_a_model_without_recurrence(results, evaluated):
    useful = with_costs(evaluated, initial=0.3, shuffled=0.3, window_only=0.3)
    useless = dataclasses.replace(with_costs(evaluated, initial=0.0, shuffled=0.0, window_only=0.0), diagnostics=None)
    assert explanations(gained(results, 0.2), useful) == []
    assert explanations(gained(results, -0.2), useless) == []
    assert explanations(gained(results, -0.2), useful)[0].startswith("It is worse than slide, although")
    assert explanations(gained(results, 0.0), useful)[0].startswith("It is no better than slide, although")
    assert explanations(gained(results, 0.2), useless)[0].startswith("It is better than slide by 0.2000")


def test_a_model_without_ablations_needs_no_explanation(results):
    assert explanations(results, results.runs[1].evaluations[0]) == []
