"""Configuration of `evaluate` and `compare`."""

import dataclasses

from block_recurrent.errors import InputError
from block_recurrent.validation import LARGEST_SEED, check_integers, check_numbers


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
        max_documents: score at most this number of documents, drawn at random with `seed`; None scores the whole split.
            All results name the part that was scored.
        max_tokens: score at most this number of tokens of the documents in the drawn order; None for no limit.

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
    max_documents: int | None = None
    max_tokens: int | None = None
    # Removed: accepted at their old defaults, so that earlier files keep working.
    sampled_documents: dataclasses.InitVar[int] = 5
    sampled_words: dataclasses.InitVar[int] = 4
    top_words: dataclasses.InitVar[int] = 20
    passage_words: dataclasses.InitVar[int] = 40

    def __post_init__(self, sampled_documents: int, sampled_words: int, top_words: int, passage_words: int):
        removed = {
            "sampled_documents": (sampled_documents, 5),
            "sampled_words": (sampled_words, 4),
            "top_words": (top_words, 20),
            "passage_words": (passage_words, 40),
        }
        for field, (value, fixed) in removed.items():
            if value != fixed:
                raise InputError(f"EvaluationConfig.{field} = {value!r}: removed; it is now always {fixed}")
        positive = ("bootstrap_replicates", "official_segments", "reset_segments", "frozen_segments")
        check_integers(self, positive, 1)
        check_integers(self, ("diagnostic_tokens",), 2)
        check_integers(self, [name for name in ("max_documents", "max_tokens") if getattr(self, name) is not None], 1)
        check_integers(self, ("seed",), 0, LARGEST_SEED)
        check_numbers(self, ("bootstrap_level",), 0.5, 1)
