import math

import jax
import numpy as np
import pytest

from block_recurrent.data.batching.batches import Batch
from block_recurrent.data.batching.meliad_schedule import OfficialSchedule
from block_recurrent.evaluation import provenance
from block_recurrent.evaluation.meliad_protocol import masked, score_as_official_code
from block_recurrent.evaluation.passes import Shape
from block_recurrent.evaluation.records import Bootstrap
from block_recurrent.evaluation.scorer import Placement
from block_recurrent.evaluation.scores import by_distance, by_position, scored_text, summarise
from block_recurrent.evaluation.token_losses import TokenLosses, doubling_edges, scored_starts
from block_recurrent.model.language_model import apply, init_state
from tests.data.conftest import write_store

BOOTSTRAP = Bootstrap(replicates=50, level=0.9, seed=0)


def test_a_hand_computed_example(tmp_path):
    """'one two three' and 'four five' with a loss of ln 4 (2 bits) per token: 12 + 8 scored bytes, 5 words."""
    store = write_store(tmp_path / "test", ["one two three", "four five"])
    losses = TokenLosses(np.full(20, math.log(4), np.float32), scored_starts(store.lengths))
    scores = summarise(store, losses, BOOTSTRAP)
    assert (scores["documents"], scores["tokens"], scores["bytes"], scores["words"]) == (2, 20, 20, 5)
    assert scores["characters"] == 20
    assert scores["words_source"] == "store"
    for name in ("bits_per_token", "bits_per_byte", "bits_per_character"):
        assert scores[name].value == pytest.approx(2, rel=1e-6)
    assert scores["token_perplexity"].value == pytest.approx(4, rel=1e-6)
    # exp(20 ln 4 / 5) = 4^4
    assert scores["word_perplexity"].value == pytest.approx(256, rel=1e-6)


def test_word_perplexity_divides_by_the_published_words_of_a_whole_split(tmp_path, monkeypatch):
    store = write_store(tmp_path / "test", ["one two three", "four five"])
    monkeypatch.setattr(type(store.metadata), "published_corpus", "PG19")
    monkeypatch.setattr(provenance, "PUBLISHED_WORDS", {store.metadata.split: 10})
    losses = TokenLosses(np.full(20, math.log(4), np.float32), scored_starts(store.lengths))
    for documents, source, perplexity in ((2, "published", 16), (3, "store", 256)):
        monkeypatch.setattr(provenance, "PUBLISHED_DOCUMENTS", {store.metadata.split: documents})
        scores = summarise(store, losses, BOOTSTRAP)
        assert scores["words_source"] == source
        assert scores["word_perplexity"].value == pytest.approx(perplexity, rel=1e-6)


def test_multibyte_characters_count_once_and_single_token_documents_are_not_scored(split):
    text = scored_text(split)
    assert text.documents.tolist() == [0, 2, 3, 4, 5]
    assert text.tokens.sum() == text.bytes.sum() == (split.lengths[text.documents] - 1).sum()
    umlauts = 3  # ü, ï, é
    assert text.characters[2] == pytest.approx(text.bytes[2] - umlauts, abs=0.1)


def test_bins_contain_every_token_once():
    lengths = np.array([3, 1, 70, 40])
    starts = scored_starts(lengths)
    values = np.arange(starts[-1], dtype=np.float32)
    losses = TokenLosses(values, starts)
    bins = by_position(losses, BOOTSTRAP)
    assert [(b.low, b.high) for b in bins] == [(1, 16), (16, 32), (32, 64), (64, 70)]
    assert [b.tokens for b in bins] == [2 + 15 + 15, 16 + 16, 32 + 8, 6]
    assert [b.documents for b in bins] == [3, 2, 2, 1]
    assert sum(b.tokens * b.bits_per_token.value for b in bins) == pytest.approx(values.sum() / math.log(2))
    # By distance since a multiple of 20: position 21 has distance 1 again.
    by_hand = np.zeros((2, 2))
    for document, count in enumerate(losses.counts):
        for index in range(count):
            k = 0 if index % 20 + 1 < 16 else 1
            by_hand[k] += losses.of(document)[index], 1
    found = by_distance(losses, 20, BOOTSTRAP)
    assert [b.tokens for b in found] == by_hand[:, 1].tolist()
    for b, (total, count) in zip(found, by_hand, strict=True):
        assert b.bits_per_token.value == pytest.approx(total / count / math.log(2))
    assert doubling_edges(16).tolist() == [1, 16, 17]


def test_the_official_protocol_equals_a_plain_loop(split, model, params):
    """One row: documents in order, segments of 16 with carried state, the last target of each and id 0 masked."""
    segments, n = 14, 16
    step = jax.jit(apply, static_argnums=0)
    losses = tokens = 0
    left = segments
    for document in list(range(len(split))) * 2:
        ids = split.read(document, 0, 10**6).astype(np.int32)
        state = init_state(model, params, 1)
        for start in range(0, len(ids), n):
            if not left:
                break
            left -= 1
            segment = np.zeros(n, np.int32)
            segment[: len(ids[start : start + n])] = ids[start : start + n]
            output = step(model, params, segment[None], state)
            state = output.state
            logits = np.asarray(output.logits[0], np.float64)
            log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            for place in range(n - 1):
                if segment[place] and segment[place + 1]:
                    losses -= log_probabilities[place, segment[place + 1]]
                    tokens += 1
    scores = score_as_official_code(
        model,
        params,
        split,
        Shape(batch_size=1, segment_length=n),
        segments=segments,
        placement=Placement(),
        progress=lambda done, total: None,
    )
    assert scores["tokens"] == tokens
    assert scores["nats"] == pytest.approx(losses, rel=1e-5)
    assert scores["token_perplexity"] == pytest.approx(math.exp(losses / tokens), rel=1e-5)


def test_official_masks_and_schedule():
    arrays = {"tokens": np.array([[5, 0, 6, 7]]), "targets": np.array([[0, 6, 7, 8]])}
    batch = Batch(**arrays, weights=np.ones((1, 4), np.float32), start_of_document=np.array([True]),
                  document=np.array([0]), offset=np.array([0]))  # fmt: skip
    assert masked(batch).weights.tolist() == [[0, 0, 1, 0]]
    schedule = OfficialSchedule(np.array([9, 0, 4, 5]), batch_size=2, segment_length=4, num_steps=5)
    located = [schedule.locate(step) for step in range(5)]
    assert [x.document.tolist() for x in located] == [[0, 2], [0, 3], [0, 3], [0, 2], [0, 3]]
    assert [x.offset.tolist() for x in located] == [[0, 0], [4, 0], [8, 4], [0, 0], [4, 0]]
