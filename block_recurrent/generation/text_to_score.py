"""A text as the scorer takes it."""

import dataclasses

import numpy as np

from block_recurrent.data.sources.text import replace_surrogates
from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.errors import InputError


@dataclasses.dataclass(frozen=True)
class TextToScore:
    """The ids of a text and the number of bytes that its scored tokens cover."""

    ids: np.ndarray
    scored_bytes: int


def text_to_score(number: int, text: str, vocabulary: Vocabulary, *, begun: bool) -> TextToScore:
    """Returns the ids of a text.

    Args:
        number: index of the text, for messages.
        text: the text.
        vocabulary: encodes it.
        begun: True if the text continues a state, so that its first token is scored.

    Raises:
        InputError: the text has no token to score.
    """
    ids = np.asarray(vocabulary.encode(text), np.int32)
    if len(ids) < (1 if begun else 2):
        raise InputError(
            f"text {number}: {len(ids)} token(s), nothing to score; a document's first token is never scored"
        )
    skipped = 0 if begun else vocabulary.first_token_bytes(text)
    return TextToScore(ids, len(replace_surrogates(text).encode()) - skipped)
