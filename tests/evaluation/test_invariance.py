"""No metric depends on batch shape, devices or the order of the documents."""

import numpy as np
import pytest

from block_recurrent.config import MeshConfig
from block_recurrent.evaluation.records import Bootstrap, Estimate
from block_recurrent.evaluation.scorer import carried
from block_recurrent.evaluation.scores import summarise
from block_recurrent.parallel.sharding import make_mesh
from block_recurrent.training.evaluator import evaluate
from tests.data.conftest import write_store
from tests.evaluation.conftest import TEXTS, one_pass
from tests.evaluation.test_interventions import slow_losses

BOOTSTRAP = Bootstrap(replicates=50, level=0.9, seed=0)
RELATIVE = 1e-6


@pytest.fixture(scope="module")
def expected(tmp_path_factory, split, model, params):
    losses = one_pass(tmp_path_factory.mktemp("one"), carried(model), params, split, batch_size=1, segment_length=8)
    return summarise(split, losses, BOOTSTRAP)


def numbers(metrics, *, intervals):
    """Returns all metrics as plain numbers."""
    found = {}
    for name, value in metrics.items():
        if isinstance(value, Estimate):
            found[name] = value.value
            if intervals:
                found |= {f"{name} from": value.low, f"{name} to": value.high}
        elif not isinstance(value, str):
            found[name] = value
    return found


@pytest.mark.parametrize(
    "shape",
    [
        {"batch_size": 1, "segment_length": 40},
        {"batch_size": 2, "segment_length": 8},
        {"batch_size": 5, "segment_length": 24},
        {"batch_size": 9, "segment_length": 16, "devices": 4},
        {"batch_size": 8, "segment_length": 8, "devices": 8},
    ],
    ids=str,
)
def test_segment_length_batch_size_and_devices_change_no_metric(tmp_path, split, model, params, expected, shape):
    found = summarise(split, one_pass(tmp_path, carried(model), params, split, **shape), BOOTSTRAP)
    assert numbers(found, intervals=True) == pytest.approx(numbers(expected, intervals=True), rel=RELATIVE)


def test_order_of_documents_changes_no_metric(tmp_path, model, params, expected):
    order = [3, 0, 5, 1, 4, 2]
    other = write_store(tmp_path / "other" / "test", {f"document {d}": TEXTS[d] for d in order})
    losses = one_pass(tmp_path / "pass", carried(model), params, other, batch_size=2)
    found = summarise(other, losses, BOOTSTRAP)  # intervals draw documents by index
    assert numbers(found, intervals=False) == pytest.approx(numbers(expected, intervals=False), rel=RELATIVE)


def test_metrics_equal_those_of_the_numpy_reference_one_document_at_a_time(split, model, params, expected):
    tokens = [split.read(d, 0, 10**6).astype(np.int64) for d in range(len(split))]
    slow = sum(slow_losses(model, params, ids, lambda block, states: states).sum() for ids in tokens if len(ids) > 1)
    assert expected["nats"] == pytest.approx(slow, rel=RELATIVE)
    size = sum(len(text.encode()) - len(text[0].encode()) for text in TEXTS if len(text.encode()) > 1)
    assert expected["bits_per_byte"].value == pytest.approx(slow / np.log(2) / size, rel=RELATIVE)
    words = sum(len(text.split()) for text in TEXTS)
    assert expected["word_perplexity"].value == pytest.approx(np.exp(slow / words), rel=1e-5)  # exp amplifies errors


def test_evaluation_during_training_has_the_same_scores(split, model, params, expected):
    mesh = make_mesh(MeshConfig(data=1))
    scores = evaluate(model, params, split, mesh=mesh, batch_size=3, segment_length=16)
    assert scores.nats == pytest.approx(expected["nats"], rel=RELATIVE)
    assert (scores.tokens, scores.documents) == (expected["tokens"], expected["documents"])
    assert scores.bits_per_byte == pytest.approx(expected["bits_per_byte"].value, rel=RELATIVE)
