"""From the losses of every token to the numbers of a split, and to loss by position."""

import dataclasses
import math
from typing import Any

import numpy as np

from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.evaluation.bootstrap import ratio_estimate, ratio_estimates, transformed
from block_recurrent.evaluation.provenance import official_words
from block_recurrent.evaluation.records import Bootstrap, Estimate
from block_recurrent.evaluation.results import Bin
from block_recurrent.evaluation.token_losses import TokenLosses, doubling_edges

LN2 = math.log(2)


@dataclasses.dataclass(frozen=True)
class ScoredText:
    """What the scored tokens of each document stand for: all of the document but its first token.

    Attributes:
        documents: (d,) indices of the documents with a scored token.
        tokens: (d,) scored tokens.
        bytes: (d,) UTF-8 bytes.
        characters: (d,) float64 code points. The store knows the bytes of a document's first token, not its characters:
            these are taken in proportion, which is exact where a document is ASCII and otherwise off by less than that
            one token.
        words: (d,) words of the whole documents, as white space parts them; at least 1.
    """

    documents: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    characters: np.ndarray
    words: np.ndarray


def scored_text(store: TokenStore) -> ScoredText:
    """Counts the text behind a split's scored tokens."""
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
    """The numbers of `results.Scores`."""
    text = scored_text(store)
    total = losses.sums()[text.documents]
    published = official_words(store)
    words = store.metadata.counts.words if published is None else published
    per_document_words = text.words * (words / text.words.sum())  # the published count, shared out
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


def bits(losses: Estimate) -> Estimate:
    """The same in bits."""
    return transformed(losses, lambda x: x / LN2)


def bits_per(losses: np.ndarray, units: np.ndarray, bootstrap: Bootstrap) -> Estimate:
    """Total bits over total units, of documents' sums (d,) and (d,)."""
    return bits(ratio_estimate(losses, units, bootstrap))


def by_position(losses: TokenLosses, bootstrap: Bootstrap) -> tuple[Bin, ...]:
    """Loss by the target's position in its document, in bins that double."""
    edges = doubling_edges(int(losses.counts.max()))
    positions = np.arange(1, int(losses.counts.max()) + 1)
    sums, counts = losses.sums_by_bin(np.searchsorted(edges, positions, side="right") - 1, len(edges) - 1)
    return make_bins(edges, sums, counts, bootstrap)


def by_distance(losses: TokenLosses, period: int, bootstrap: Bootstrap) -> tuple[Bin, ...]:
    """Loss by the tokens read since the last multiple of `period`: 1 for the target after the first of them."""
    edges = doubling_edges(period)
    distances = np.arange(1, period + 1)
    sums, counts = losses.sums_by_bin(np.searchsorted(edges, distances, side="right") - 1, len(edges) - 1)
    return make_bins(edges, sums, counts, bootstrap)


def make_bins(edges: np.ndarray, sums: np.ndarray, counts: np.ndarray, bootstrap: Bootstrap) -> tuple[Bin, ...]:
    """Bins that hold tokens.

    Args:
        edges: (K + 1,) first positions of the bins, and one past the last.
        sums: (D, K) losses of each document in each bin.
        counts: (D, K) tokens of each document in each bin.
        bootstrap: how to make intervals.
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
    return math.exp(min(x, 700))  # words of hundreds of bytes, an untrained model: JSON knows no infinity
