"""Words of a document: their tokens, their last occurrence, and whether they are names."""

import bisect
import dataclasses
import itertools
import keyword
import re
from collections.abc import Callable, Sequence

import numpy as np

from block_recurrent.evaluation.comparison_results import Reach

# A word: a run of letters, digits and underscores.
_WORD = re.compile(r"\w+")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Text before the first word of a sentence or quotation; a paragraph also starts a sentence.
_SENTENCE_END = re.compile(r"[.!?:;\"'\u201c\u201d\u2018\u2019(\[*_—-]\s*$|\n\s*\n\s*$|^\s*$")
_CODE_SOURCES = ("python_stdlib", "github")
# String literals and comments of source code: Python's, and those of C and its relatives where they cannot be taken for
# Python's operators. A `#` before a letter is C's preprocessor.
_LITERAL = re.compile(
    r'"""(?:[^\\]|\\.)*?"""'
    r"|'''(?:[^\\]|\\.)*?'''"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'(?:[^'\\\n]|\\.)*'"
    r"|#(?![\w\[])[^\n]*"
    r"|(?m:^[ \t]*)//[^\n]*"
    r"|/\*.*?\*/",
    re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class NameRule:
    """A rule that decides which words are names.

    Attributes:
        text: the rule in words.
        is_name: called with a word and the text before it (at least the last 40 characters).
        without: pattern of the parts of a text in which no word is a name; None for none.
    """

    text: str
    is_name: Callable[[str, str], bool]
    without: re.Pattern[str] | None = None


@dataclasses.dataclass(frozen=True)
class Word:
    """A word of a document.

    Attributes:
        text: the word as spelled.
        start: position of its first token.
        stop: one past the position of its last token.
        name: True for a name, by the rule.
        since: tokens from the start of the same word's last occurrence to this one; None for the first occurrence.
        reach: as in `comparison_results.ImprovedWord`.
    """

    text: str
    start: int
    stop: int
    name: bool
    since: int | None
    reach: Reach


def _proper_name(word: str, before: str) -> bool:
    capitalised = len(word) > 1 and word[0].isupper() and any(c.islower() for c in word[1:])
    return capitalised and not _SENTENCE_END.search(before[-40:])


def _identifier(word: str, before: str) -> bool:
    del before
    return len(word) > 1 and _IDENTIFIER.fullmatch(word) is not None and not keyword.iskeyword(word)


PROPER_NAMES = NameRule(
    "proper names: words of at least two characters that start with a capital letter, contain a lower-case letter, and "
    "are neither at the start of a paragraph nor directly after one of . ! ? : ; ( [ * _ - — or a quotation mark",
    _proper_name,
)
IDENTIFIERS = NameRule(
    "identifiers: words of at least two characters that match [A-Za-z_][A-Za-z0-9_]*, are not Python keywords, and are "
    "not in a string literal, a docstring or a comment",
    _identifier,
    _LITERAL,
)


def rule_for(source: str) -> NameRule:
    """Returns the rule for a text source: identifiers for source code, proper names for everything else."""
    return IDENTIFIERS if source in _CODE_SOURCES else PROPER_NAMES


def find_words(pieces: Sequence[bytes], window: int | None, rule: NameRule) -> list[Word]:
    """Finds the words of a document.

    A token belongs to the word that contains its first letter, digit or underscore; blanks before a word belong to the
    word. A token thus belongs to at most one word. Words without a token of their own are left out.

    Args:
        pieces: bytes of each token.
        window: W; None means that the whole preceding text is within reach.
        rule: decides which words are names.
    """
    text = b"".join(pieces).decode("utf-8", "replace")
    if len(text.encode("utf-8", "replace")) != sum(map(len, pieces)):
        text = b"".join(pieces).decode("latin-1")  # invalid UTF-8: one character per byte keeps the offsets right
        ends = list(itertools.accumulate(1 for _ in text))
    else:
        ends = list(itertools.accumulate(len(c.encode()) for c in text))  # byte at which each character ends
    token_ends = list(itertools.accumulate(map(len, pieces)))
    last: dict[str, tuple[int, int]] = {}
    words, taken = [], 0
    nameless = _Nameless(text, rule)
    for match in _WORD.finditer(text):
        first_byte = ends[match.start() - 1] if match.start() else 0
        start = max(taken, bisect.bisect_right(token_ends, first_byte))
        stop = bisect.bisect_left(token_ends, ends[match.end() - 1]) + 1
        if start >= stop:
            continue
        taken = stop
        word, before = match.group(), text[max(0, match.start() - 60) : match.start()]
        since, reach = _occurrence(last.get(word), start, window)
        last[word] = start, stop
        name = rule.is_name(word, before) and not nameless.holds(match.start())
        words.append(Word(word, start, stop, name, since, reach))
    return words


class _Nameless:
    """The parts of a text in which no word is a name; asked for places in ascending order."""

    def __init__(self, text: str, rule: NameRule):
        self._parts = iter(()) if rule.without is None else (match.span() for match in rule.without.finditer(text))
        self._start, self._stop = next(self._parts, (len(text), len(text)))

    def holds(self, place: int) -> bool:
        """Returns whether the character at a place is in one of the parts."""
        while self._stop <= place and (part := next(self._parts, None)):
            self._start, self._stop = part
        return self._start <= place < self._stop


def _occurrence(last: tuple[int, int] | None, start: int, window: int | None) -> tuple[int | None, Reach]:
    if last is None:
        return None, "never"
    # The word's first token is predicted at start - 1, which attends to itself and, within a layer, to the W tokens
    # before it.
    inside = window is None or last[0] >= start - 1 - window
    return start - last[0], "inside" if inside else "beyond"


def word_sums(words: Sequence[Word], values: np.ndarray) -> np.ndarray:
    """Sums token values over each word.

    Args:
        words: words of a document, in order.
        values: (n - 1,) values of the positions 1, 2, ...

    Returns:
        Sums, (len(words),) float64; NaN for a word that contains the document's first token, which has no value.
    """
    total = np.concatenate([[0.0, 0.0], np.cumsum(values, dtype=np.float64)])  # total[p]: positions 1, ..., p - 1
    starts = np.array([w.start for w in words], np.int64)
    stops = np.array([w.stop for w in words], np.int64)
    return np.where(starts > 0, total[stops] - total[starts], np.nan)
