"""Scores of texts against the parallel forward pass, with and without a context."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.generation.scoring import Score, TextToScore, score_rows
from block_recurrent.model.loss import cross_entropy
from tests.support.architectures import CACHED, WINDOW, perturbed_params, random_tokens
from tests.support.decoding import SEGMENT, prefill_rows, teacher_forced_logits

CONFIG = CACHED["lstm_dual"]
LENGTHS = (2, SEGMENT + 1, 5, 2 * SEGMENT + 3, WINDOW)


@pytest.fixture(scope="module")
def params():
    return perturbed_params(CONFIG)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.asarray(random_tokens(CONFIG, len(LENGTHS), max(LENGTHS)))


@pytest.fixture(scope="module")
def losses(params, tokens) -> np.ndarray:
    """Loss of every token but the first of each row."""
    logits = teacher_forced_logits(CONFIG, params, tokens)
    return np.asarray(cross_entropy(jnp.asarray(logits[:, :-1]), jnp.asarray(tokens[:, 1:])))


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_scores_equal_the_forward_pass_whatever_the_batch(params, tokens, losses, batch_size):
    texts = [TextToScore(row[:length], 10 * length) for row, length in zip(tokens, LENGTHS, strict=True)]
    scores = list(score_rows(CONFIG, params, texts, None, batch_size=batch_size, segment_length=SEGMENT))
    assert [score.text for score in scores] == list(range(len(LENGTHS)))
    for row, (score, length) in enumerate(zip(scores, LENGTHS, strict=True)):
        assert score.tokens == tuple(tokens[row, 1:length].tolist())
        assert score.bytes == 10 * length
        np.testing.assert_allclose(score.nats, losses[row, : length - 1], rtol=0, atol=2e-5)


@pytest.mark.parametrize("start", [1, WINDOW - 1, WINDOW, SEGMENT, SEGMENT + 3])
def test_after_a_context_every_token_is_scored(params, tokens, losses, start):
    context = prefill_rows(CONFIG, params, tokens[3:4], [start])
    texts = [TextToScore(tokens[3, start:end], 1) for end in (start + 1, max(LENGTHS))]
    scores = score_rows(CONFIG, params, texts, context, batch_size=2, segment_length=SEGMENT)
    for score, text in zip(scores, texts, strict=True):
        assert score.tokens == tuple(text.ids.tolist())
        expected = losses[3, start - 1 : start - 1 + len(text.ids)]
        np.testing.assert_allclose(score.nats, expected, rtol=0, atol=2e-5)


def test_no_texts_have_no_scores(params):
    assert not list(score_rows(CONFIG, params, [], None, batch_size=2, segment_length=SEGMENT))


def test_a_score_is_reported_in_nats_and_bits():
    score = Score(text=0, tokens=(5, 6), nats=(math.log(2), 3 * math.log(2)), bytes=8)
    assert score.log_probability == pytest.approx(-4 * math.log(2))
    assert score.bits_per_token == pytest.approx(2)
    assert score.bits_per_byte == pytest.approx(0.5)
    assert list(score.as_dict()) == [
        "text",
        "tokens",
        "nats",
        "bytes",
        "log_probability",
        "bits_per_token",
        "bits_per_byte",
    ]
