"""Configuration of `evaluate` and `compare`."""

import dataclasses

from block_recurrent.validation import check_integers, check_numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the studies of `evaluate` and `compare` are made; the data's shape is `DataConfig`'s.

    Attributes:
        bootstrap_replicates: draws of documents behind every confidence interval.
        bootstrap_level: coverage of the intervals.
        seed: of those draws, of the permutation test and of the documents of the qualitative study.
        official_segments: segments that each row reads with `--official`; the official code's 400.
        reset_segments: ablation `reset`: segments after which the recurrent states start anew.
        frozen_segments: ablation `frozen`: segments of a document after which the recurrent states stay as they are.
        diagnostic_tokens: how much of the longest document the diagnostics read.
        sampled_documents: documents of the qualitative study, drawn at random; the paper's 5.
        sampled_words: most improved words of each of them; the paper's 4.
        top_words: most improved words over all documents.
        passage_words: words shown on each side of an improved word.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    bootstrap_replicates: int = 1000
    bootstrap_level: float = 0.95
    seed: int = 0
    official_segments: int = 400
    reset_segments: int = 1
    frozen_segments: int = 1
    diagnostic_tokens: int = 100_000
    sampled_documents: int = 5
    sampled_words: int = 4
    top_words: int = 20
    passage_words: int = 40

    def __post_init__(self):
        positive = ("bootstrap_replicates", "official_segments", "reset_segments", "frozen_segments")
        check_integers(self, (*positive, "sampled_documents", "sampled_words", "top_words", "passage_words"), 1)
        check_integers(self, ("diagnostic_tokens",), 2)
        check_integers(self, ("seed",), 0)
        check_numbers(self, ("bootstrap_level",), 0.5, 1)
