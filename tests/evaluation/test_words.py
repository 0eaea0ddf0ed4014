import numpy as np
import pytest

from block_recurrent.data.vocabulary import ByteVocabulary
from block_recurrent.evaluation.words import IDENTIFIERS, PROPER_NAMES, find_words, rule_for, word_sums

BYTES = ByteVocabulary()


def pieces_of(text):
    return BYTES.pieces(BYTES.encode(text))


def test_pieces_concatenate_to_the_text(pieces):
    text = "the river of Bern, naïve café \u2603 walked."
    assert b"".join(pieces_of(text)).decode() == text
    known = "the river of the silent night"
    assert b"".join(pieces.pieces(pieces.encode(known))).decode() == f" {known}"  # the model prepends a blank
    assert BYTES.pieces(np.array([0, 1, 2, 100])) == [b"", b"", b"", b"a"]
    assert pieces.pieces(np.array([pieces.unknown_id, pieces.size])) == [b"", b""]


def test_words_have_their_positions_and_last_occurrences():
    text = "é Anna met Bo. Bo left Anna"
    words = {(w.text, w.start): w for w in find_words(pieces_of(text), 8, PROPER_NAMES)}
    raw = text.encode()
    assert [w for w, _ in words] == ["é", "Anna", "met", "Bo", "Bo", "left", "Anna"]
    for (spelled, start), word in words.items():
        assert raw[start : word.stop].decode() == spelled
    first_anna, second_anna = raw.index(b"Anna"), raw.rindex(b"Anna")
    assert words["Anna", second_anna].since == second_anna - first_anna
    assert words["Anna", second_anna].reach == "beyond"
    assert words["Anna", first_anna].reach == "never"
    assert words["Bo", raw.rindex(b"Bo")].reach == "inside"


def test_inside_means_entirely_within_the_window_of_one_layer():
    """`ab` recurs 6 tokens later; it is predicted at start - 1, which attends to itself and the W tokens before."""
    for window in (5, 6):
        text = "ab" + " " * 4 + "ab"
        again = find_words(pieces_of(text), window, PROPER_NAMES)[1]
        assert again.since == 6
        assert again.reach == ("inside" if 6 - 1 - window <= 0 else "beyond")
    assert find_words(pieces_of("ab" + " " * 99 + "ab"), None, PROPER_NAMES)[1].reach == "inside"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("We saw Anna and the USA with McDonald.", ["Anna", "McDonald"]),
        ("Then it rained. Boris left; Clara too: Dora", []),
        ("He said \u201cCome\u201d to Emil\n\nFresh paragraph", ["Emil"]),
        ("I am", []),
    ],
)
def test_the_rule_for_proper_names(text, names):
    assert [w.text for w in find_words(pieces_of(text), 8, PROPER_NAMES) if w.name] == names


def test_the_rule_for_identifiers():
    words = find_words(pieces_of("def total(x1, ü): return x1 + 12"), 8, IDENTIFIERS)
    assert [w.text for w in words if w.name] == ["total", "x1", "x1"]
    assert rule_for("github") is IDENTIFIERS
    assert rule_for("pg19") is PROPER_NAMES


def test_words_of_docstrings_strings_and_comments_are_no_identifiers():
    code = '''def total(parts):
    """Adds up "parts" of the bill."""  # not the tips
    key = f'sum \\' of {parts}'
    # whole line
    return {"name": parts[0]} // parts[-1]
#include <header>
    // remark of C
/* long
remark */ tail = '' + later
'''
    names = [w.text for w in find_words(pieces_of(code), 8, IDENTIFIERS) if w.name]
    assert names == ["total", "parts", "key", "parts", "parts", "include", "header", "tail", "later"]
    unfinished = find_words(pieces_of('tail """ of a document'), 8, IDENTIFIERS)
    assert [w.text for w in unfinished if w.name] == ["tail", "of", "document"]


def test_a_word_s_loss_is_the_sum_of_its_tokens(pieces):
    text = "the river of the silent night"
    ids = pieces.encode(text)
    values = np.arange(1.0, len(ids))  # position p has loss p
    words = find_words(pieces.pieces(ids), 8, PROPER_NAMES)
    assert [w.text for w in words] == text.split()
    sums = word_sums(words, values)
    assert np.isnan(sums[0])
    for word, total in list(zip(words, sums, strict=True))[1:]:
        assert total == sum(range(word.start, word.stop))
    assert sum(w.stop - w.start for w in words) == len(ids)  # each token belongs to one word


def test_words_in_invalid_utf8_keep_their_positions():
    pieces_with_damage = [b"a", b"b", b" ", b"\xff", b"\xfe", b" ", b"c", b"d"]
    words = [(w.text, w.start, w.stop) for w in find_words(pieces_with_damage, 8, PROPER_NAMES)]
    assert words[0] == ("ab", 0, 2)
    assert words[-1] == ("cd", 6, 8)
