"""Results of a comparison of models, as dataclasses in one JSON file; conventions as in `results.py`."""

import dataclasses
from typing import ClassVar, Literal

from block_recurrent.evaluation.records import Estimate, Result, Subject
from block_recurrent.evaluation.results import Bin

Reach = Literal["never", "inside", "beyond"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassageToken:
    """One token of a passage and its improvement.

    Attributes:
        text: text of the token; a character that takes several tokens belongs to the last of them.
        bits: improvement over the baseline, positive where the model is better; 0 for a document's first token.
    """

    text: str
    bits: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImprovedWord:
    """A word with a much lower loss than under the baseline, as in the paper's qualitative study.

    A word is a run of letters, digits and underscores; its loss is the sum over its tokens.

    Attributes:
        document: index in the store.
        document_name: name of the document.
        position: position of the word's first token.
        text: the word.
        baseline_bits: loss under the baseline.
        bits: loss under this model.
        improvement: `baseline_bits` minus `bits`.
        reach: where the same word last occurred: `inside` the attention window (wholly among the W + 1 tokens that the
            position before this word can attend to within one layer), `beyond` it, or `never` before in the document.
        tokens_since: tokens from the start of the last occurrence to the start of this one; None for the first.
        name: True for a proper name or an identifier, by the rule of the study.
        passage: the surrounding text, token by token, with each token's improvement.
        passage_start: position of the passage's first token.
    """

    document: int
    document_name: str
    position: int
    text: str
    baseline_bits: float
    bits: float
    improvement: float
    reach: Reach
    tokens_since: int | None
    name: bool
    passage: tuple[PassageToken, ...]
    passage_start: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordGroup:
    """All words of one kind, over all documents.

    Attributes:
        reach: as in `ImprovedWord`.
        name: True for names or identifiers, False for all other words.
        words: number of words.
        baseline_bits: mean bits per word under the baseline.
        bits: mean bits per word under this model.
        improvement: mean difference, resampled by document.
    """

    reach: Reach
    name: bool
    words: int
    baseline_bits: float
    bits: float
    improvement: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordStudy:
    """The words that improve over the baseline.

    Attributes:
        rule: definition of a name, as text.
        window: W of the model.
        sampled_documents: documents drawn at random for `sampled`, with the bootstrap's seed.
        sampled: the most improved words of each sampled document, as in the paper (4 of each of 5).
        top: the most improved words of all documents, at most one per spelling and document.
        groups: all words, grouped by reach and name.
    """

    rule: str
    window: int | None
    sampled_documents: tuple[int, ...]
    sampled: tuple[ImprovedWord, ...]
    top: tuple[ImprovedWord, ...]
    groups: tuple[WordGroup, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """Differences between a model and the baseline on the same tokens; positive where the model is better.

    Attributes:
        subject: the model.
        bits_per_token: of this model.
        bits_per_byte: of this model.
        improvement_per_token: bits per token saved, paired by document.
        improvement_per_byte: bits per byte saved, paired by document.
        p_value: two-sided p-value of a sign-flip permutation test over the documents' total differences; None with
            fewer than two documents.
        documents_better: number of documents on which this model is better.
        by_position: bins of the target's position; their `bits_per_token` is the improvement.
        words: the study of words.
    """

    subject: Subject
    bits_per_token: Estimate
    bits_per_byte: Estimate
    improvement_per_token: Estimate
    improvement_per_byte: Estimate
    p_value: float | None
    documents_better: int
    by_position: tuple[Bin, ...]
    words: WordStudy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(Result):
    """`comparison.json`.

    Attributes:
        baseline: the first model.
        bits_per_token: of the baseline.
        bits_per_byte: of the baseline.
        documents: scored documents.
        tokens: scored tokens.
        differences: the other models, in the order of the command line.
    """

    FILE: ClassVar = "comparison.json"

    baseline: Subject
    bits_per_token: Estimate
    bits_per_byte: Estimate
    documents: int
    tokens: int
    differences: tuple[Difference, ...]
