"""Comparison of models on the same tokens: paired differences, and the words that improve."""

import codecs
import heapq
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from etils import epath

from block_recurrent.data.recorded_vocabulary import load_recorded_vocabulary
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.evaluation import parquet
from block_recurrent.evaluation.bootstrap import ratio_estimate, sign_flip_p_value
from block_recurrent.evaluation.comparison_results import (
    Comparison,
    Difference,
    ImprovedWord,
    PassageToken,
    Reach,
    WordGroup,
    WordStudy,
)
from block_recurrent.evaluation.records import Bootstrap, Subject, write
from block_recurrent.evaluation.scores import LN2, ScoredText, bits, bits_per, by_position, scored_text
from block_recurrent.evaluation.token_losses import TokenLosses
from block_recurrent.evaluation.words import NameRule, Word, find_words, rule_for, word_sums

_SAMPLED_DOCUMENTS = 5  # as in the paper
_SAMPLED_WORDS = 4  # of each sampled document; as in the paper
_TOP_WORDS = 20
_PASSAGE_WORDS = 40  # on each side of an improved word
_KINDS: list[tuple[Reach, bool]] = [(reach, name) for reach in get_args(Reach) for name in (True, False)]


class PairedComparison:
    """A model compared with the baseline on one split.

    Args:
        store: the split.
        vocabulary: the store's.
        baseline: token losses of the baseline.
        other: token losses of the model.
        window: W of the model.
        bootstrap: settings of the confidence intervals.
    """

    def __init__(
        self,
        store: TokenStore,
        vocabulary: Vocabulary,
        baseline: TokenLosses,
        other: TokenLosses,
        *,
        window: int | None,
        bootstrap: Bootstrap,
    ):
        self._store, self._vocabulary, self._window = store, vocabulary, window
        self._baseline, self._other, self._bootstrap = baseline, other, bootstrap
        self._text: ScoredText = scored_text(store)
        self._rule: NameRule = rule_for(store.metadata.source)

    def difference(self, subject: Subject) -> Difference:
        """Returns the differences from the baseline; `subject` describes the model."""
        text, documents = self._text, self._text.documents
        sums = self._other.sums()[documents]
        saved = self._baseline.sums()[documents] - sums
        improvement = TokenLosses(self._baseline.values - self._other.values, self._baseline.starts)
        return Difference(
            subject=subject,
            bits_per_token=bits_per(sums, text.tokens, self._bootstrap),
            bits_per_byte=bits_per(sums, text.bytes, self._bootstrap),
            improvement_per_token=bits_per(saved, text.tokens, self._bootstrap),
            improvement_per_byte=bits_per(saved, text.bytes, self._bootstrap),
            p_value=sign_flip_p_value(saved, self._bootstrap.seed),
            documents_better=int((saved > 0).sum()),
            by_position=by_position(improvement, self._bootstrap),
            words=self._study(),
        )

    def _study(self) -> WordStudy:
        documents = self._text.documents
        count = min(_SAMPLED_DOCUMENTS, len(documents))
        order = np.argsort(np.random.Philox(key=self._bootstrap.seed).random_raw(len(documents)), kind="stable")
        chosen = set(documents[order[:count]].tolist())
        sums = np.zeros((len(documents), len(_KINDS), 3))  # words, baseline loss, model loss
        top: list[tuple[float, int, int, Word, float, float]] = []
        sampled: list[ImprovedWord] = []
        for row, document in enumerate(documents.tolist()):
            pieces, best = self._read(document, sums[row])
            top = heapq.nlargest(_TOP_WORDS, [*top, *best])
            if document in chosen:
                shown = best[:_SAMPLED_WORDS]
                sampled += [self._improved(document, pieces, *item[3:]) for item in shown]
        return WordStudy(
            rule=self._rule.text,
            window=self._window,
            sampled_documents=tuple(sorted(chosen)),
            sampled=tuple(sampled),
            top=tuple(self._improved(-item[1], self._pieces(-item[1]), *item[3:]) for item in top),
            groups=self._groups(sums),
        )

    def _read(
        self, document: int, sums: np.ndarray
    ) -> tuple[list[bytes], list[tuple[float, int, int, Word, float, float]]]:
        """Adds a document's words to `sums`; returns its pieces and its most improved words, the best first."""
        pieces = self._pieces(document)
        words = find_words(pieces, self._window, self._rule)
        before, after = (word_sums(words, losses.of(document)) for losses in (self._baseline, self._other))
        best: dict[str, tuple[float, int, int, Word, float, float]] = {}
        for word, old, new in zip(words, before.tolist(), after.tolist(), strict=True):
            if old != old:  # the document's first token, which is not scored
                continue
            sums[_KINDS.index((word.reach, word.name))] += (1, old, new)
            if word.text not in best or old - new > best[word.text][0]:
                # Ties: the earlier document, then the earlier word.
                best[word.text] = (old - new, -document, -word.start, word, old, new)
        return pieces, heapq.nlargest(max(_TOP_WORDS, _SAMPLED_WORDS), best.values())

    def _pieces(self, document: int) -> list[bytes]:
        return self._vocabulary.pieces(self._store.read(document, 0, int(self._store.lengths[document])))

    def _improved(self, document: int, pieces: list[bytes], word: Word, old: float, new: float) -> ImprovedWord:
        start, stop = self._passage(pieces, word)
        saved = (self._baseline.of(document) - self._other.of(document)).astype(np.float64) / LN2
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        tokens = [
            PassageToken(text=decode(pieces[p]), bits=float(saved[p - 1]) if p else 0.0) for p in range(start, stop)
        ]
        return ImprovedWord(
            document=document,
            document_name=self._store.names[document],
            position=word.start,
            text=word.text,
            baseline_bits=old / LN2,
            bits=new / LN2,
            improvement=(old - new) / LN2,
            reach=word.reach,
            tokens_since=word.since,
            name=word.name,
            passage=tuple(tokens),
            passage_start=start,
        )

    def _passage(self, pieces: list[bytes], word: Word) -> tuple[int, int]:
        """Returns the first and one past the last position of a word's passage; blanks count as word boundaries."""
        start, blanks = word.start, 0
        while start > 0 and blanks < _PASSAGE_WORDS:
            start -= 1
            blanks += pieces[start].isspace() or pieces[start][:1].isspace()
        stop, blanks = word.stop, 0
        while stop < len(pieces) and blanks < _PASSAGE_WORDS:
            blanks += pieces[stop].isspace() or pieces[stop][:1].isspace()
            stop += 1
        while stop > word.stop and pieces[stop - 1].isspace():
            stop -= 1
        return start, stop

    def _groups(self, sums: np.ndarray) -> tuple[WordGroup, ...]:
        groups = []
        for kind, (reach, name) in enumerate(_KINDS):
            words, old, new = sums[:, kind].T
            total: Any = words.sum()
            if total:
                groups.append(
                    WordGroup(
                        reach=reach,
                        name=name,
                        words=int(total),
                        baseline_bits=float(old.sum() / total / LN2),
                        bits=float(new.sum() / total / LN2),
                        improvement=bits(ratio_estimate(old - new, words, self._bootstrap)),
                    )
                )
        return tuple(groups)


def write_comparison(
    header: dict[str, Any],
    store: TokenStore,
    models: Sequence[tuple[Subject, TokenLosses]],
    folder: epath.Path,
    vocabulary: Vocabulary | None = None,
) -> Comparison:
    """Compares models with the first one, and writes `comparison.json` and `comparison.parquet`.

    Args:
        header: the fields of `records.Result`.
        store: the split.
        models: each with its token losses on the split.
        folder: output folder.
        vocabulary: the store's vocabulary; None loads it.

    Raises:
        InputError: the store's vocabulary is not found.
    """
    bootstrap, text = header["bootstrap"], scored_text(store)
    if vocabulary is None:
        recorded = store.vocabulary
        vocabulary = load_recorded_vocabulary(recorded.spec, recorded.fingerprint, folders=[store.path])
    (baseline, base_losses), *others = models
    sums = base_losses.sums()[text.documents]
    differences = []
    for subject, losses in others:
        window = subject.config["window_length"]
        paired = PairedComparison(store, vocabulary, base_losses, losses, window=window, bootstrap=bootstrap)
        differences.append(paired.difference(subject))
    comparison = Comparison(
        **header,
        baseline=baseline,
        bits_per_token=bits_per(sums, text.tokens, bootstrap),
        bits_per_byte=bits_per(sums, text.bytes, bootstrap),
        documents=len(text.documents),
        tokens=int(text.tokens.sum()),
        differences=tuple(differences),
    )
    columns: dict[str, Any] = {
        "document": text.documents,
        "name": [store.names[int(d)] for d in text.documents],
        "tokens": text.tokens,
        "bytes": text.bytes,
    }
    for number, (_, losses) in enumerate(models):
        columns[f"nats_{number}"] = losses.sums()[text.documents]
    parquet.write_table(folder / "comparison.parquet", columns)
    write(comparison, folder)
    return comparison
