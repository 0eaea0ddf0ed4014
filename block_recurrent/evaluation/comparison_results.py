"""What a comparison of models finds, as dataclasses with one JSON file; the conventions are those of `results.py`."""

import dataclasses
from typing import ClassVar, Literal

from block_recurrent.evaluation.records import Estimate, Result, Subject
from block_recurrent.evaluation.results import Bin

Reach = Literal["never", "inside", "beyond"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassageToken:
    """A piece of text with what the model made of it.

    Attributes:
        text: what the token stands for; a character made of several tokens belongs to the last of them.
        bits: improvement over the baseline, positive where the model is better; 0 for a document's first token.
    """

    text: str
    bits: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImprovedWord:
    """A word whose cross-entropy fell much: the paper's qualitative study.

    A word is a run of letters, digits and underscores; its nats are the sum over its tokens.

    Attributes:
        document: index in the store.
        document_name: its name.
        position: of the word's first token.
        text: the word.
        baseline_bits: what it costs the first model.
        bits: what it costs this one.
        improvement: the difference.
        reach: whether the same word last occurred `inside` the attention window (wholly among the W + 1 tokens that
            the position before it can see within one layer), `beyond` it, or `never` before in the document.
        tokens_since: tokens from the last occurrence's beginning to this one's; None if there was none.
        name: whether it is a proper name or an identifier by the rule of the study.
        passage: the text around it, token by token, with each token's improvement.
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
    """Words of a kind, over all documents.

    Attributes:
        reach: as in `ImprovedWord`.
        name: names or identifiers, or the rest.
        words: how many.
        baseline_bits: mean bits of a word, first model.
        bits: mean bits of a word, this model.
        improvement: the mean difference, by document.
    """

    reach: Reach
    name: bool
    words: int
    baseline_bits: float
    bits: float
    improvement: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordStudy:
    """Which words improve.

    Attributes:
        rule: what counts as a name, in words.
        window: W of the model; the tokens that one layer reaches.
        sampled_documents: documents drawn for `sampled` (by the bootstrap's seed).
        sampled: the most improved words of each sampled document, as in the paper (4 of each of 5).
        top: the most improved words of all documents, at most one for each spelling in a document.
        groups: all words by reach and name.
    """

    rule: str
    window: int | None
    sampled_documents: tuple[int, ...]
    sampled: tuple[ImprovedWord, ...]
    top: tuple[ImprovedWord, ...]
    groups: tuple[WordGroup, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A model against the baseline on the same tokens. Improvements are positive where the model is better.

    Attributes:
        subject: the model.
        bits_per_token: its own mean.
        bits_per_byte: likewise.
        improvement_per_token: bits per token that it saves, paired by document.
        improvement_per_byte: bits per byte that it saves.
        p_value: two-sided, of a sign-flip permutation test over the documents' total differences.
        documents_better: documents on which it is better.
        by_position: bins; `bits_per_token` is the improvement.
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
        differences: the other models, in the order in which they were named.
    """

    FILE: ClassVar = "comparison.json"

    baseline: Subject
    bits_per_token: Estimate
    bits_per_byte: Estimate
    documents: int
    tokens: int
    differences: tuple[Difference, ...]
