"""Stop strings in a stream of text, however the text is divided."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from block_recurrent.errors import InputError
from block_recurrent.generation.stop_strings import StopStrings

TEXTS = st.text("abc", max_size=12)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


def stream(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """Returns the text shown in total and whether a stop string ended it."""
    stop, shown = StopStrings(stops), ""
    for piece in pieces:
        text, stopped = stop.push(piece)
        shown += text
        if stopped:
            return shown, True
    return shown + stop.flush(), False


def stopped_text(text: str, stops: list[str]) -> tuple[str, bool]:
    """Returns the text up to the stop string that is complete first; of several, the one that begins first."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(TEXTS, STOPS, st.lists(st.integers(0, 12), max_size=5))
def test_any_division_of_a_text_gives_the_result_of_the_whole(text, stops, cuts):
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]
    expected = stopped_text(text, stops)
    assert stream(pieces, stops) == expected
    assert stream([text], stops) == expected
    assert stream(list(text), stops) == expected


@given(TEXTS, STOPS)
def test_only_a_possible_beginning_of_a_stop_string_is_held_back(text, stops):
    stop, shown = StopStrings(stops), ""
    for end in range(1, len(text) + 1):
        piece, stopped = stop.push(text[end - 1])
        shown += piece
        if stopped:
            return
        held = text[len(shown) : end]
        beginnings = {string[:n] for string in stops for n in range(len(string))}
        assert shown + held == text[:end]
        assert held == max((b for b in beginnings if text[:end].endswith(b)), key=len, default="")


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one two three", ["three", "two"], "one "),
        ("abcd", ["abcd", "bc"], "a"),  # `bc` is complete first
        ("xabc", ["bc", "abc"], "x"),  # both are complete at once
    ],
)
def test_the_first_complete_stop_string_wins(text, stops, expected):
    assert stream([text], stops) == (expected, True)
    assert stream(list(text), stops) == (expected, True)


def test_held_back_text_is_shown_when_it_turns_out_to_be_no_stop_string():
    stop = StopStrings(["abc"])
    assert stop.push("xab") == ("x", False)
    assert stop.push("ab") == ("ab", False)
    assert stop.flush() == "ab"
    assert stop.flush() == ""


def test_an_empty_stop_string_is_refused():
    with pytest.raises(InputError, match="stop string: empty"):
        StopStrings(["a", ""])
