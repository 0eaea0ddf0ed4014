"""Continuations built token by token: text, counts and finish reasons."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from block_recurrent.data.vocabulary import ByteVocabulary
from block_recurrent.generation.completion import Continuation, ContinuationWriter

VOCABULARY = ByteVocabulary()


def make_writer(num_tokens: int, *, stop: Sequence[str] = (), context: Sequence[int] = ()) -> ContinuationWriter:
    return ContinuationWriter(
        prompt=2, sample=1, vocabulary=VOCABULARY, context=context, num_tokens=num_tokens, stop=stop
    )


def ids_of(text: str) -> list[int]:
    return VOCABULARY.encode(text).tolist()


def take(writer: ContinuationWriter, ids: Sequence[int]) -> tuple[int, str]:
    return writer.take(ids, [0.5] * len(ids))


def test_a_continuation_of_full_length():
    writer = make_writer(5)
    assert writer.remaining == 5
    assert take(writer, ids_of("ab")) == (2, "ab")
    assert writer.remaining == 3
    assert writer.take(ids_of("cde"), [1.0, 2.0, 3.0]) == (3, "cde")
    assert writer.remaining == 0
    whole = writer.finish()
    assert whole == Continuation(
        prompt=2,
        sample=1,
        text="abcde",
        tokens=tuple(ids_of("abcde")),
        nats=(0.5, 0.5, 1.0, 2.0, 3.0),
        finish_reason="length",
    )
    assert whole.log_probability == -7.0
    assert list(whole.as_dict()) == [
        "prompt",
        "sample",
        "text",
        "tokens",
        "nats",
        "finish_reason",
        "log_probability",
    ]


def test_a_stop_string_ends_the_continuation_with_its_last_token():
    writer = make_writer(9, stop=["END"])
    assert take(writer, ids_of("textEN")) == (6, "text")
    assert take(writer, ids_of("D..")) == (1, "")
    assert writer.remaining == 0
    whole = writer.finish()
    assert whole.text == "text"
    assert whole.tokens == tuple(ids_of("textEND"))
    assert len(whole.nats) == 7
    assert whole.finish_reason == "stop"


def test_the_beginning_of_a_stop_string_is_shown_at_full_length():
    writer = make_writer(6, stop=["END"])
    assert take(writer, ids_of("textE")) == (5, "text")
    assert take(writer, ids_of("N")) == (1, "EN")
    assert writer.finish().finish_reason == "length"


def test_a_stop_string_that_ends_at_full_length_is_a_stop():
    writer = make_writer(3, stop=["c"])
    assert take(writer, ids_of("abc")) == (3, "ab")
    assert writer.finish().finish_reason == "stop"


def test_a_character_is_shown_with_its_last_byte():
    writer, ids = make_writer(6), ids_of("é漢!")
    shown = [take(writer, [token]) for token in ids]
    assert shown == [(1, ""), (1, "é"), (1, ""), (1, ""), (1, "漢"), (1, "!")]


def test_a_character_that_the_prompt_began_is_completed():
    first, second = ids_of("é")
    assert take(make_writer(1, context=[first]), [second]) == (1, "é")


@pytest.mark.parametrize(("stop", "text", "reason"), [((), "a\ufffd", "length"), (("\ufffd",), "a", "stop")])
def test_an_incomplete_character_at_the_end_is_a_replacement_character(stop, text, reason):
    writer = make_writer(2, stop=stop)
    assert take(writer, [*ids_of("a"), ids_of("é")[0]]) == (2, text)
    assert (writer.finish().text, writer.finish().finish_reason) == (text, reason)


@given(st.lists(st.integers(0, 258), min_size=1, max_size=20), st.lists(st.integers(0, 20), max_size=4))
def test_streamed_text_is_the_text_of_all_tokens_however_they_are_divided(ids, cuts):
    writer, shown = make_writer(len(ids)), ""
    places = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    for start, end in itertools.pairwise(places):
        taken, text = take(writer, ids[start:end])
        assert taken == end - start
        shown += text
    assert shown == writer.finish().text == VOCABULARY.decode(ids)
    assert writer.finish().tokens == tuple(ids)
