"""Scores of a split, and loss by position, from the token losses."""

import dataclasses
import math
from typing import Any

import numpy as np

from block_recurrent.data.store.excerpt import Split
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.evaluation.bootstrap import ratio_estimate, ratio_estimates, transformed
from block_recurrent.evaluation.provenance import official_words
from block_recurrent.evaluation.records import Bootstrap, Estimate
from block_recurrent.evaluation.results import Bin
from block_recurrent.evaluation.token_losses import TokenLosses, doubling_edges

LN2 = math.log(2)


@dataclasses.dataclass(frozen=True)
class ScoredText:
    """Sizes of the scored text of each document: all of it except the first token.

    Attributes:
        documents: (d,) indices of the documents with a scored token.
        tokens: (d,) scored tokens.
        bytes: (d,) UTF-8 bytes.
        characters: (d,) float64 code points. The store records the bytes of a document's first token but not its
            characters, so they are taken in proportion: exact for ASCII, otherwise off by less than one token.
        words: (d,) words of the whole documents, separated by white space; at least 1.
    """

    documents: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    characters: np.ndarray
    words: np.ndarray


def scored_text(store: Split) -> ScoredText:
    """Returns the sizes of a split's scored text."""
    documents = np.flatnonzero(store.lengths > 1)
    size, first = store.bytes[documents], store.first_token_bytes[documents]
    return ScoredText(
        documents=documents,
        tokens=store.lengths[documents] - 1,
        bytes=size - first,
        characters=store.characters[documents] * (1 - first / size),
        words=np.maximum(store.words[documents], 1),
    )


def summarise(store: TokenStore, losses: TokenLosses, bootstrap: Bootstrap) -> dict[str, Any]:
    """Returns the fields of `results.Scores` other than the header."""
    text = scored_text(store)
    total = losses.sums()[text.documents]
    published = official_words(store)
    words = store.metadata.counts.words if published is None else published
    per_document_words = text.words * (words / text.words.sum())  # the published count, in proportion to the store's
    denominators = (text.tokens, text.bytes, text.characters, per_document_words)
    per = ratio_estimates(np.stack([total] * 4, axis=1), np.stack(denominators, axis=1), bootstrap)
    per_token, per_byte, per_character, per_word = per
    return {
        "documents": len(text.documents),
        "tokens": int(text.tokens.sum()),
        "bytes": int(text.bytes.sum()),
        "characters": float(text.characters.sum()),
        "words": words,
        "words_source": "store" if published is None else "published",
        "nats": float(total.sum()),
        "bits_per_token": bits(per_token),
        "bits_per_byte": bits(per_byte),
        "bits_per_character": bits(per_character),
        "token_perplexity": transformed(per_token, _exp),
        "word_perplexity": transformed(per_word, _exp),
    }


def bits(nats: Estimate) -> Estimate:
    """Converts an estimate from nats to bits."""
    return transformed(nats, lambda x: x / LN2)


def bits_per(losses: np.ndarray, units: np.ndarray, bootstrap: Bootstrap) -> Estimate:
    """Returns bits per unit, from the losses in nats (d,) and the units (d,) of each document."""
    return bits(ratio_estimate(losses, units, bootstrap))


def by_position(losses: TokenLosses, bootstrap: Bootstrap) -> tuple[Bin, ...]:
    """Returns the loss by the target's position in its document, in bins of doubling size."""
    edges = doubling_edges(int(losses.counts.max()))
    positions = np.arange(1, int(losses.counts.max()) + 1)
    sums, counts = losses.sums_by_bin(np.searchsorted(edges, positions, side="right") - 1, len(edges) - 1)
    return make_bins(edges, sums, counts, bootstrap)


def by_distance(losses: TokenLosses, period: int, bootstrap: Bootstrap) -> tuple[Bin, ...]:
    """Returns the loss by the tokens since the last multiple of `period`; 1 is the first target after it."""
    edges = doubling_edges(period)
    distances = np.arange(1, period + 1)
    sums, counts = losses.sums_by_bin(np.searchsorted(edges, distances, side="right") - 1, len(edges) - 1)
    return make_bins(edges, sums, counts, bootstrap)


def make_bins(edges: np.ndarray, sums: np.ndarray, counts: np.ndarray, bootstrap: Bootstrap) -> tuple[Bin, ...]:
    """Returns the bins that contain tokens.

    Args:
        edges: (K + 1,), first positions of the bins, and one past the last position.
        sums: (D, K), loss in nats of each document in each bin.
        counts: (D, K), tokens of each document in each bin.
        bootstrap: settings of the confidence intervals.
    """
    used = np.flatnonzero(counts.sum(axis=0))
    estimates = ratio_estimates(sums[:, used], counts[:, used], bootstrap)
    return tuple(
        Bin(
            low=int(edges[k]),
            high=int(edges[k + 1]),
            documents=int((counts[:, k] > 0).sum()),
            tokens=int(counts[:, k].sum()),
            bits_per_token=bits(estimate),
        )
        for k, estimate in zip(used, estimates, strict=True)
    )


def _exp(x: float) -> float:
    return math.exp(min(x, 700))  # untrained models and long words would overflow, and JSON has no infinity
