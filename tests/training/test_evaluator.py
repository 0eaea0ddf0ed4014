import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.config import MeshConfig
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.model.language_model import apply, init_params, init_state
from block_recurrent.model.loss import cross_entropy
from block_recurrent.parallel.sharding import make_mesh
from block_recurrent.training.evaluator import evaluate
from tests.support.workdirs import run_config

ONE_DEVICE = make_mesh(MeshConfig(data=1))


@pytest.mark.slow
def test_a_split_has_the_scores_of_its_documents_one_by_one(store_folder):
    """The reference scores each document alone, in one segment."""
    run = run_config(store_folder)
    store = TokenStore.open(store_folder / "validation")
    params = init_params(run.model, jax.random.key(0))
    scores = evaluate(run.model, params, store, mesh=ONE_DEVICE, batch_size=3, segment_length=16)
    longest = -(-int(store.lengths.max()) // 8) * 8

    @jax.jit
    def score(tokens: jax.Array, targets: jax.Array) -> jax.Array:
        return cross_entropy(apply(run.model, params, tokens, init_state(run.model, params, 1)).logits, targets)

    loss = 0.0
    for document, length in enumerate(store.lengths):
        ids = np.zeros((1, longest + 1), np.int32)
        ids[0, :length] = store.read(document, 0, int(length))
        loss += float(score(jnp.asarray(ids[:, :-1]), jnp.asarray(ids[:, 1:]))[0, : length - 1].sum())
    assert scores.complete
    assert scores.documents == len(store)
    assert scores.tokens == (store.lengths - 1).sum()
    assert scores.bytes == (store.bytes - 1).sum()
    np.testing.assert_allclose(scores.nats, loss, rtol=1e-6)
    np.testing.assert_allclose(scores.bits_per_byte, loss / math.log(2) / scores.bytes, rtol=1e-6)
    np.testing.assert_allclose(scores.token_perplexity, math.exp(loss / scores.tokens), rtol=1e-6)


@pytest.mark.parametrize(("batch_size", "segment_length"), [(1, 8), (2, 64), (20, 16)])
def test_batch_and_segment_do_not_change_the_result(store_folder, batch_size, segment_length):
    run = run_config(store_folder)
    store = TokenStore.open(store_folder / "validation")
    params = init_params(run.model, jax.random.key(0))
    expected = evaluate(run.model, params, store, mesh=ONE_DEVICE, batch_size=3, segment_length=16)
    scores = evaluate(run.model, params, store, mesh=ONE_DEVICE, batch_size=batch_size, segment_length=segment_length)
    assert dataclasses.replace(scores, nats=0.0) == dataclasses.replace(expected, nats=0.0)
    np.testing.assert_allclose(scores.nats, expected.nats, rtol=1e-6)


def test_a_partial_pass_is_marked_and_counts_its_scored_tokens(store_folder):
    run = run_config(store_folder)
    store = TokenStore.open(store_folder / "validation")
    params = init_params(run.model, jax.random.key(0))
    steps = []
    scores = evaluate(
        run.model,
        params,
        store,
        mesh=ONE_DEVICE,
        batch_size=3,
        segment_length=16,
        max_steps=2,
        progress=lambda *s: steps.append(s),
    )
    assert not scores.complete
    assert "not the whole split" in str(scores)
    assert scores.tokens == 3 * 2 * 16
    assert scores.bytes == pytest.approx(scores.tokens)  # bytes are tokens here
    assert steps == [(1, 2), (2, 2)]
