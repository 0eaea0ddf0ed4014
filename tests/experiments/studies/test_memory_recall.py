"""Recall of the retrieval modes: a small measurement against numpy, and the committed one."""

import json

import jax
import numpy as np
import pytest

from block_recurrent.model.ops.attention import unit_length
from experiments.studies.memory_recall import MODES, NEIGHBORS, RESULT, SIZES, random_memory, recall
from tests.test_language import ROOT

SMALL = {"neighbors": 16, "head_dim": 16, "num_queries": 32}


def test_the_measured_recall_is_that_of_numpy():
    bucketed, approximate = recall(256, **SMALL)
    keys = np.asarray(random_memory(256, 16, 0).keys[0, 0])
    queries = np.asarray(unit_length(jax.random.normal(jax.random.key(1), (1, 32, 1, 16)))[0, :, 0])
    scores = queries @ keys.T
    nearest = np.argsort(-scores, axis=1)[:, :16]
    best = np.argmax(scores.reshape(32, 16, 16), axis=1) * 16 + np.arange(16)  # of each bucket: slot i in bucket i % 16
    for count in (1, 8, 16):
        shares = [np.isin(wanted[:count], found).mean() for wanted, found in zip(nearest, best, strict=True)]
        assert bucketed["recall"][count] == pytest.approx(np.mean(shares), abs=1e-9)
    assert bucketed["recall"][1] == 1.0  # the nearest key is the best of its bucket
    assert 0.5 < bucketed["recall"][16] < 0.8
    assert set(approximate["recall"].values()) == {1.0}  # on a CPU


def test_the_committed_measurement_has_every_size_and_mode_and_the_expected_recall():
    """A bucket keeps one of its keys, so of K keys in K random buckets 1 - (1 - 1 / K) ** K remain, 63 %."""
    result = json.loads((ROOT / RESULT).read_text())
    assert [(entry["size"], entry["mode"]) for entry in result["entries"]] == [(s, m) for s in SIZES for m in MODES]
    assert result["platform"] == "cpu"
    for entry in result["entries"]:
        if entry["mode"] == "bucketed":
            expected = 1 - (1 - 1 / NEIGHBORS) ** NEIGHBORS
            assert entry["recall"][str(NEIGHBORS)] == pytest.approx(expected, abs=0.01)
        else:
            assert set(entry["recall"].values()) == {1.0}
