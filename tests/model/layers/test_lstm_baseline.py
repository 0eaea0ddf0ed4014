"""The LSTM baseline: against plain numpy, segment by segment, and in training and evaluation."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from block_recurrent.config import EvaluationConfig, ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.evaluation.evaluation import Evaluation
from block_recurrent.evaluation.model_under_test import load_model_under_test
from block_recurrent.generation import decode_state
from block_recurrent.model.language_model import apply, init_params, init_state
from block_recurrent.training.loop import train
from tests.support.architectures import LSTM, random_tokens
from tests.support.workdirs import QUIET, run_config

run = jax.jit(apply, static_argnums=0)


def params_of(config: ModelConfig) -> dict[str, Any]:
    """Returns perturbed parameters, without special values such as scales of 1 and biases of 0."""
    params = init_params(config, jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def numpy_logits(config: ModelConfig, params: Any, tokens: np.ndarray) -> np.ndarray:
    """Returns the logits of one document (Hochreiter and Schmidhuber 1997, with a forget gate)."""

    def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return x / np.sqrt(np.mean(x * x) + 1e-6) * scale

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    layers = [params["layers"][name] for name in sorted(params["layers"])]
    states = [(np.zeros(config.embed_dim), np.zeros(config.embed_dim)) for _ in layers]
    logits = []
    for token in tokens:
        x = params["embedding"][token]
        for index, layer in enumerate(layers):
            c, h = states[index]
            gates = norm(x, layer["norm"]["scale"]) @ layer["cell"]["dense_i"]["kernel"]
            gates = gates + h @ layer["cell"]["dense_h"]["kernel"] + layer["cell"]["dense_h"]["bias"]
            i, f, g, o = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            states[index] = c, sigmoid(o) * np.tanh(c)
            x = x + states[index][1]
        logits.append(norm(x, params["final_norm"]["scale"]) @ params["embedding"].T / math.sqrt(config.embed_dim))
    return np.stack(logits)


def test_equals_plain_numpy():
    params, tokens = params_of(LSTM), random_tokens(LSTM, 2, 13)
    output = run(LSTM, params, tokens, init_state(LSTM, params, 2))
    for row in range(2):
        expected = numpy_logits(LSTM, params, np.asarray(tokens[row]))
        np.testing.assert_allclose(output.logits[row], expected, rtol=0, atol=2e-5)


def test_segments_of_any_length_equal_the_whole_and_documents_start_with_zeros():
    params, tokens = params_of(LSTM), random_tokens(LSTM, 2, 13)
    whole = run(LSTM, params, tokens, init_state(LSTM, params, 2))
    first = run(LSTM, params, tokens[:, :5], init_state(LSTM, params, 2))
    second = run(LSTM, params, tokens[:, 5:], first.state)
    np.testing.assert_allclose(jnp.concatenate([first.logits, second.logits], 1), whole.logits, rtol=0, atol=1e-5)
    again = run(LSTM, params, tokens, second.state, start_of_document=jnp.array([True, False]))
    np.testing.assert_array_equal(again.logits[0], whole.logits[0])
    assert jnp.abs(again.logits[1] - whole.logits[1]).max() > 1e-3


@pytest.mark.slow
def test_training_resumes_bit_for_bit_and_the_model_can_be_evaluated(store_folder, tmp_path):
    base = run_config(store_folder)
    config = dataclasses.replace(base, model=dataclasses.replace(LSTM, vocab_size=260, dropout_rate=0.1))
    whole = train(config, epath.Path(tmp_path / "whole"), QUIET)
    half = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=5))
    train(half, epath.Path(tmp_path / "parts"), QUIET)
    parts = train(config, epath.Path(tmp_path / "parts"), QUIET)
    name = "bits_per_byte"
    assert parts.last_evaluation[name] == whole.last_evaluation[name] < whole.first_evaluation[name]
    model = load_model_under_test(epath.Path(tmp_path / "whole"))
    evaluation = Evaluation(model, base.data, "validation", EvaluationConfig(bootstrap_replicates=2))
    with evaluation.scored() as losses:
        scores = evaluation.write_scores(losses)
        assert evaluation.write_ablations(losses).contribution.verdict == "no recurrence"
    assert scores.bits_per_byte.value == pytest.approx(whole.last_evaluation[name], rel=1e-5)


@pytest.mark.parametrize(
    ("field", "value"), [("num_heads", 2), ("window_length", 8), ("recurrent_layers", (1,)), ("feedback", True)]
)
def test_fields_of_attention_are_refused(field, value):
    with pytest.raises(InputError, match=rf"ModelConfig\.{field} = .*with layer = 'lstm'"):
        dataclasses.replace(LSTM, **{field: value})


def test_decoding_is_refused():
    with pytest.raises(InputError, match=r"layer = 'lstm'.*cannot be decoded"):
        decode_state.init(LSTM, init_params(LSTM, jax.random.key(0)), 1, segment_length=8)
