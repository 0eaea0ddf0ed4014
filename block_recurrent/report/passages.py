"""Passages of text as coloured stretches, by a model's improvement over the baseline."""

import dataclasses
import itertools

from block_recurrent.evaluation.comparison_results import ImprovedWord

# Bits; tokens below the first step have no colour.
STEPS = (0.5, 1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A stretch of text with one colour.

    Attributes:
        text: the text.
        level: 0: no colour; 1 to 4: the model is better; -1 to -4: the baseline is better.
        bits: improvement of the token; None without a colour.
        word: True for a part of the improved word.
    """

    text: str
    level: int
    bits: float | None
    word: bool


def stretches(word: ImprovedWord) -> list[Stretch]:
    """Splits the passage of a word into stretches: one per coloured token, adjacent uncoloured tokens merged."""
    first = word.position - word.passage_start
    room = len(word.text)
    pieces, length = [], 0
    for index, token in enumerate(word.passage):
        inside = index >= first and length < room
        length += len(token.text.strip()) if inside else 0  # blanks before a word belong to its first token
        pieces.append(Stretch(token.text, level(token.bits), token.bits, inside))
    merged = []
    for (plain, inside), group in itertools.groupby(pieces, key=lambda piece: (piece.level == 0, piece.word)):
        if plain:
            merged.append(Stretch("".join(piece.text for piece in group), 0, None, inside))
        else:
            merged.extend(group)
    return merged


def level(bits: float) -> int:
    """Returns the colour level of a token; its sign is that of the improvement."""
    size = sum(abs(bits) >= step for step in STEPS)
    return size if bits > 0 else -size
