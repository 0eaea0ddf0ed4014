"""Claims are judged by their rules, with invented results that support them, contradict them or are inconclusive."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.laptop import report
from experiments.laptop.claims import judge
from experiments.laptop.table import REC, SLIDE, XL, XL_4W
from experiments.studies.cost_by_length import MODELS, exponent, run_of

DOCUMENTS = 40
ABLATIONS = ("reset", "initial", "shuffled", "window_only")
SECONDS = {XL: 0.2, XL_4W: 0.5, SLIDE: 0.24, REC: 0.24}


def result(row: str, bits: float, seed: int = 0, reset: tuple[float, float, float] | None = None) -> dict[str, Any]:
    """Invents a result: large differences between documents, shared by all models, and small ones of its own."""
    random = np.random.default_rng(7)
    size = random.integers(4000, 40_000, DOCUMENTS)
    own = np.random.default_rng([seed, len(row)]).normal(0, 0.002, DOCUMENTS)
    losses = (bits + random.normal(0, 0.3, DOCUMENTS) + own) * size * np.log(2)
    mean = losses.sum() / np.log(2) / size.sum()
    cost = None if reset is None else dict(zip(("value", "low", "high"), reset, strict=True))
    return {
        "row": row,
        "seed": seed,
        "steps": 10,
        "tokens_trained": 1000,
        "parameters": 1000,
        "training_seconds": 60.0,
        "machine": {"cores": 2, "machine": "x", "devices": "1 cpu", "versions": {"jax": "0"}},
        "evaluation": {
            "store": "s",
            "split": "test",
            "scored_tokens": 1,
            "documents": DOCUMENTS,
            "store_fingerprint": "f",
            "bits_per_byte": {"value": float(mean)},
        },
        "ablations": {}
        if cost is None
        else {key: {"bits_per_byte": 2.0, "cost_bits_per_byte": cost} for key in ABLATIONS},
        "learning_curve": [{"tokens_trained": n, "bits_per_byte": bits} for n in (0, 500, 1000)],
        "documents": {"name": [], "bytes": size.tolist(), "nats": losses.tolist()},
    }


def results(rec: tuple[float, float], reset: tuple[float, float, float]) -> dict[str, list[dict[str, Any]]]:
    return {
        XL_4W: [result(XL_4W, 1.9)],
        SLIDE: [result(SLIDE, 1.9, 0), result(SLIDE, 1.9, 1)],
        REC: [result(REC, bits, seed, reset) for seed, bits in enumerate(rec)],
    }


@pytest.mark.parametrize(
    ("rec", "cost", "verdicts"),
    [
        ((1.85, 1.86), (0.03, 0.01, 0.05), ["shown"] * 4),
        ((1.95, 1.96), (-0.02, -0.03, -0.01), ["opposite"] * 4),
        ((1.85, 1.96), (0.0, -0.01, 0.01), ["opposite", "opposite", "not shown", "not shown"]),
        ((1.80, 1.91), (0.01, 0.005, 0.03), ["not shown", "not shown", "shown", "not shown"]),  # better on average only
    ],
)
def test_the_verdicts_follow_the_rules(rec, cost, verdicts):
    assert [claim.verdict for claim in judge(results(rec, cost), SECONDS)] == verdicts


def test_the_cheapest_ablation_is_the_state_s_contribution():
    found = results((1.85, 1.86), (0.03, 0.01, 0.05))
    cheap = {"bits_per_byte": 2.0, "cost_bits_per_byte": {"value": 0.019, "low": 0.01, "high": 0.03}}
    found[REC][1]["ablations"]["shuffled"] = cheap
    assert judge(found, SECONDS)[3].verdict == "not shown"


def test_a_better_row_that_costs_too_much_does_not_show_the_claim():
    slow = SECONDS | {REC: 0.3}
    claims = judge(results((1.85, 1.86), (0.02, 0.01, 0.03)), slow)
    assert [claim.verdict for claim in claims] == ["not shown", "not shown", "shown", "shown"]


def test_missing_results_appear_as_missing():
    found = results((1.85, 1.86), (0.02, 0.01, 0.03))
    assert [claim.verdict for claim in judge({}, {})] == ["missing"] * 4
    assert [claim.verdict for claim in judge(found, {})] == ["missing", "missing", "shown", "shown"]
    page = report.page({XL_4W: found[XL_4W]}, SECONDS, picture=False)
    assert "| Rec:fixed:skip | 0 of 3 | missing | missing | 240 ms | 1.00 | missing | missing |" in page
    assert page.count("**missing**") == 4


def test_the_committed_page_is_up_to_date():
    folder = Path("experiments/laptop")
    seconds = json.loads((folder / "step_times.json").read_text())["seconds_per_step"]
    study = json.loads((folder / "word_study.json").read_text())
    written = report.page(report.read_results(folder / "results"), seconds, picture=True, study=study)
    assert (folder / "README.md").read_text() == written


def test_the_learning_curves_name_the_least_and_the_greatest_difference():
    found = {SLIDE: [result(SLIDE, 1.9, 0), result(SLIDE, 1.8, 1)], REC: [result(REC, 1.7, 0), result(REC, 1.6, 1)]}
    lines = report.learning_curves(found).splitlines()
    assert len(lines) == 4  # two heads, and the two evaluations after the start
    assert lines[-1].split(" | ")[1:] == ["1.8500", "1.6500", "-0.2000", "-0.3000, -0.1000 |"]


def test_the_exponent_of_a_power_law_is_recovered():
    points = {str(n): {"seconds": 3e-9 * n**1.5} for n in (1024, 4096, 8192, 65536)}
    points["1024"]["seconds"] = 99.0  # short documents are left out
    assert exponent(points) == pytest.approx(1.5)
    assert exponent({"4096": {"seconds": 1.0}, "8192": {"seconds": None}}) is None


def test_every_architecture_processes_the_whole_document():
    for name, gin_file in MODELS.items():
        run, steps = run_of(gin_file, 8192)
        assert run.data.batch_size == 1
        assert run.data.segment_length * steps == 8192
        assert (steps == 1) == (name != "XL")
