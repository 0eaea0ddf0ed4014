"""Each ablation against the numpy reference, one document at a time, with states replaced between blocks."""

import numpy as np
import pytest

from block_recurrent.evaluation import interventions
from block_recurrent.evaluation.scorer import carried
from tests.evaluation.conftest import byte_model, one_pass
from tests.support import reference
from tests.support.architectures import WINDOW, perturbed_params

# (blocks between resets, blocks until frozen)
EVERY, AFTER = 2, 3


def slow_losses(config, params, tokens, replace):
    """Returns the losses of a document's tokens, from the second on, in float64."""
    padded = np.zeros(-(-(len(tokens) - 1) // WINDOW) * WINDOW, np.int64)
    padded[: len(tokens) - 1] = tokens[:-1]
    logits = reference.run(config, params, padded[None], replace)[0][0, : len(tokens) - 1]
    log_total = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)) + logits.max(axis=1)
    return log_total - logits[np.arange(len(logits)), tokens[1:]]


def recorded_states(config, params, tokens):
    """Returns the states before each whole block; the last entry holds the states after the document."""
    seen = []

    def record(block, states):
        seen.append(list(states))
        return states

    whole = len(tokens) // WINDOW * WINDOW
    padded = np.concatenate(
        [tokens[:whole], np.zeros(WINDOW, np.int64)]
    )  # one more block, to record the states before it
    reference.run(config, params, padded[None], record)
    return seen


def frozen(after):
    kept = {}

    def replace(block, states):
        if block == after:
            kept["states"] = list(states)
        return list(kept["states"]) if block >= after else states

    return replace


def reset(params, every):
    initial = [
        np.asarray(layer["states"]["initial_state"], np.float64) if "states" in layer else None
        for layer in params["layers"].values()
    ]
    return lambda block, states: list(initial) if block % every == 0 else states


def without_cross_attention(config, params):
    """Returns parameters with zero output weights for attention to states."""
    size = config.num_heads * config.head_dim
    layers = {}
    for name, layer in params["layers"].items():
        side = layer.get("tokens", layer)
        kernel = np.array(side["output"]["kernel"])
        kernel[size:] = 0
        side = {**side, "output": {"kernel": kernel}}
        layers[name] = {**layer, "tokens": side} if "tokens" in layer else side
    return {**params, "layers": layers}


def assert_equals(losses, store, slow):
    for document in range(len(store)):
        tokens = store.read(document, 0, 10**6).astype(np.int64)
        if len(tokens) > 1:
            np.testing.assert_allclose(losses.of(document), slow(document, tokens), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "name", [pytest.param("fixed_skip", marks=pytest.mark.slow), "lstm_dual", "feedback_fixed_skip"]
)
def test_each_method_equals_the_numpy_reference(tmp_path, split, name):
    config = byte_model(name)
    params = perturbed_params(config)
    silent = without_cross_attention(config, params)
    expected = {
        carried(config): lambda d, t: slow_losses(config, params, t, lambda block, states: states),
        interventions.reset(config, every_blocks=EVERY): lambda d, t: slow_losses(
            config, params, t, reset(params, EVERY)
        ),
        interventions.frozen(config, after_blocks=AFTER): lambda d, t: slow_losses(config, params, t, frozen(AFTER)),
        interventions.frozen(config, after_blocks=0, name="initial"): lambda d, t: slow_losses(
            config, params, t, frozen(0)
        ),
        interventions.window_only(config): lambda d, t: slow_losses(config, silent, t, lambda block, states: states),
    }
    totals = []
    for method, slow in expected.items():
        losses = one_pass(tmp_path / method.name, method, params, split)
        assert_equals(losses, split, slow)
        totals.append(round(float(losses.sums().sum()), 3))
    assert len(set(totals)) == len(totals)  # all methods differ


def test_shuffled_attends_to_the_states_of_the_next_longer_document(tmp_path, split, model, params):
    order = sorted(range(len(split)), key=lambda d: -split.lengths[d])
    partner = dict(zip(order[1:], order[:-1], strict=True)) | {order[0]: order[1]}
    np.testing.assert_array_equal(interventions.donors(split.lengths), [partner[d] for d in range(len(split))])

    def slow(document, tokens):
        states = recorded_states(model, params, split.read(partner[document], 0, 10**6).astype(np.int64))
        return slow_losses(model, params, tokens, lambda block, _: list(states[min(block, len(states) - 1)]))

    assert_equals(one_pass(tmp_path, interventions.shuffled(model, split), params, split), split, slow)


@pytest.mark.parametrize(("batch_size", "segment_length", "devices"), [(1, 8, 1), (5, 32, 1), (8, 16, 8), (3, 16, 2)])
def test_batch_size_segment_length_and_devices_change_no_loss(
    tmp_path, split, model, params, batch_size, segment_length, devices
):
    for method in (
        carried(model),
        interventions.reset(model, every_blocks=EVERY),
        interventions.shuffled(model, split),
    ):
        expected = one_pass(tmp_path / "a", method, params, split)
        shape = {"batch_size": batch_size, "segment_length": segment_length, "devices": devices}
        losses = one_pass(tmp_path / "b", method, params, split, **shape)
        np.testing.assert_allclose(losses.values, expected.values, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(losses.sums().sum(), expected.sums().sum(), rtol=1e-6)
