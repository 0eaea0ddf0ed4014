"""Texts reach the model alike by every way, and a bad line of a batch does not lose the others."""

import json
from pathlib import Path

import pytest

from block_recurrent.cli.text_io import gather_texts, json_lines, text_of_argument
from block_recurrent.errors import InputError
from tests.support.commands import load_once, run_command


@pytest.fixture
def workdir(byte_run, monkeypatch):
    """Returns a run of a byte model, which is loaded once for all commands."""
    load_once(monkeypatch)
    return byte_run


def texts_of_lines(tmp_path: Path, content: bytes) -> list[str | InputError]:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(content)
    return gather_texts(None, None, path, "text")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\r\nb\rc\n", "a\r\nb\rc\n"),
        (b"\xef\xbb\xbfa\xef\xbb\xbf", "a\ufeff"),
        (b"a\xe9\xe2\x82b\xed\xa0\x80", "a\ufffd\ufffdb\ufffd\ufffd\ufffd"),
        (b"a\x00\x1ab", "a\0\x1ab"),
    ],
)
def test_bytes_follow_one_rule_by_every_way(tmp_path, data, text):
    path = tmp_path / "text"
    path.write_bytes(data)
    assert gather_texts(None, path, None, "text") == [text]
    argument = data.decode("utf-8", "surrogateescape")  # as Python decodes arguments
    assert gather_texts([argument], None, None, "text") == [text]
    assert texts_of_lines(tmp_path, json.dumps(text).encode()) == [text]


def test_surrogates_become_replacement_characters(tmp_path):
    assert texts_of_lines(tmp_path, rb'"a\ud800b\udc00\ud83d\ude00\ufeff"') == ["a\ufffdb\ufffd\U0001f600\ufeff"]
    assert text_of_argument("\ud800x\ud83d\ude00") == "\ufffdx\U0001f600"  # no bytes become such an argument


def test_lines_may_end_with_crlf_and_begin_with_a_mark(tmp_path):
    content = b'\xef\xbb\xbf"one"\r\n\r\n{"text": "two\\r\\n"}\r\n'
    assert texts_of_lines(tmp_path, content) == ["one", "two\r\n"]


def test_repairs_are_printed(tmp_path, capsys):
    texts_of_lines(tmp_path, b'"a\\ud800"\n"b\\udfff"\n"c\xff"\n"d"')
    shown = capsys.readouterr().err
    assert "warning: texts with lone surrogates (replaced by U+FFFD): 2 of 4\n" in shown
    assert "warning: texts with undecodable bytes (replaced by U+FFFD): 1 of 4\n" in shown


def test_a_bad_line_is_an_error_among_the_texts(tmp_path):
    lines = [b'"good"', b"{", b"[1]", b'{"prompt": "x"}', b"[" * 100_000, b"'single'", b'"last"']
    texts = texts_of_lines(tmp_path, b"\n".join(lines))
    assert [isinstance(text, InputError) for text in texts] == [False, True, True, True, True, True, False]
    assert "lines.jsonl, line 2: not JSON" in str(texts[1])
    assert "line 4: must be a string, or an object with a string in 'text'" in str(texts[3])


def test_what_cannot_be_read_at_all_is_one_error(tmp_path):
    with pytest.raises(InputError, match=r"line 1: not JSON.*and 1 other lines; none has a text"):
        texts_of_lines(tmp_path, b"plain\ntext\n")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        gather_texts(None, tmp_path, None, "text")
    with pytest.raises(InputError, match="standard input: holds one text or JSON lines"):
        gather_texts(None, Path("-"), Path("-"), "text")


def test_a_batch_is_scored_without_its_bad_lines(workdir, tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "3 times"}\n{\n"x"\n"4 \\ud800"\n')
    ended = run_command("score", "--workdir", workdir, "--texts", lines, "--jsonl", "-")
    assert ended.code == 1
    first, second, third, last = ended.records
    assert (first["text"], second["text"], third["text"], last["text"]) == (0, 1, 2, 3)
    assert "lines.jsonl, line 2: not JSON" in second["error"]
    assert third["error"].startswith("1 token(s), nothing to score")
    assert bytes(token - 3 for token in last["tokens"]) == " \ufffd".encode()
    assert "2 of 4 texts could not be answered" in ended.err
    alone = run_command("score", "--workdir", workdir, "--text", "3 times", "--jsonl", "-")
    assert alone.code == 0
    assert alone.records[0]["nats"] == pytest.approx(first["nats"], abs=1e-4)
    table = run_command("score", "--workdir", workdir, "--texts", lines)
    assert table.code == 1
    assert [line.split()[0] for line in table.out.splitlines()[1:]] == ["0", "3", "all"]
    assert "error: text 2: 1 token(s), nothing to score" in table.err


def test_a_single_text_is_refused_with_exit_code_2(workdir, tmp_path):
    for arguments in (("score", "--text", "x"), ("score",), ("generate", "--prompt", ""), ("generate",)):
        ended = run_command(*arguments, "--workdir", workdir)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("error: ")
        assert len(ended.err.splitlines()) == 1


def test_a_batch_is_continued_without_its_bad_lines(workdir, tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{\n"3 times"\n""\n"4 \\udfff"\n')
    options = ("generate", "--workdir", workdir, "--prompts", lines, "--num-tokens", 3, "--greedy")
    ended = run_command(*options, "--num-samples", 2, "--jsonl", "-")
    assert ended.code == 1
    keys = [(record["prompt"], record.get("sample")) for record in ended.records]
    assert keys == [(0, None), (1, 0), (1, 1), (2, None), (3, 0), (3, 1)]
    assert ended.records[3]["error"].startswith("empty; the model does not predict")
    assert ended.records[4]["prompt_text"] == "4 \ufffd"
    streamed = run_command(*options)
    assert streamed.code == 1
    assert "prompt 3, sample 0" in streamed.out
    assert "error: prompt 2: empty" in streamed.err
    lines.write_text('""\n')
    ended = run_command(*options, "--jsonl", "-")
    assert (ended.code, [*ended.records[0]]) == (1, ["prompt", "error"])


def test_json_lines_lose_nothing(tmp_path):
    path = tmp_path / "out.jsonl"
    with json_lines(path) as write:
        write({"text": "é\U0001f600", "name": "\udce9"})
        write({"text": "é"})
    assert [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()] == ["é\U0001f600", "é"]
    assert "é" in path.read_text("utf-8").splitlines()[1]
