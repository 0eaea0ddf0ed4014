"""Configuration of `evaluate` and `compare`."""

import dataclasses

from block_recurrent.validation import check_integers, check_numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of the studies of `evaluate` and `compare`; `DataConfig` has the store and the shape of the batches.

    Attributes:
        bootstrap_replicates: number of resamples of the documents for each confidence interval.
        bootstrap_level: coverage of the confidence intervals, from 0.5 to below 1.
        seed: seed of the resamples, of the permutation test and of the documents of the qualitative study.
        official_segments: segments per row with `--official`; 400 in the official code.
        reset_segments: ablation `reset`: number of segments after which the recurrent states are reset.
        frozen_segments: ablation `frozen`: number of segments of a document after which the recurrent states stay
            constant.
        diagnostic_tokens: tokens of the longest document on which gates and states are recorded; at least 2.
        sampled_documents: qualitative study: number of randomly chosen documents; 5 in the paper.
        sampled_words: qualitative study: number of most improved words in each of these documents; 4 in the paper.
        top_words: number of most improved words over all documents.
        passage_words: number of words shown on each side of an improved word.

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
