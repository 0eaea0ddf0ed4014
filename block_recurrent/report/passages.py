"""Passages of text cut into runs of tokens of one colour, by how much a model improves on the baseline."""

import dataclasses
import itertools

from block_recurrent.evaluation.comparison_results import ImprovedWord

# Bits; what lies below the first step stays uncoloured.
STEPS = (0.5, 1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Text of one colour.

    Attributes:
        text: as it stands in the document.
        level: 0 uncoloured; 1 to 4 the model is better, -1 to -4 the baseline is.
        bits: improvement of its tokens, or None where it is uncoloured.
        word: whether it belongs to the improved word itself.
    """

    text: str
    level: int
    bits: float | None
    word: bool


def stretches(word: ImprovedWord) -> list[Stretch]:
    """The passage around a word; coloured tokens stand alone, uncoloured ones are joined."""
    first = word.position - word.passage_start
    room = len(word.text)
    pieces, length = [], 0
    for index, token in enumerate(word.passage):
        inside = index >= first and length < room
        length += len(token.text.strip()) if inside else 0  # blanks before a word go with its first token
        pieces.append(Stretch(token.text, level(token.bits), token.bits, inside))
    joined = []
    for (plain, inside), group in itertools.groupby(pieces, key=lambda piece: (piece.level == 0, piece.word)):
        if plain:
            joined.append(Stretch("".join(piece.text for piece in group), 0, None, inside))
        else:
            joined.extend(group)
    return joined


def level(bits: float) -> int:
    """How strongly a token is coloured: its sign is that of the improvement."""
    size = sum(abs(bits) >= step for step in STEPS)
    return size if bits > 0 else -size
