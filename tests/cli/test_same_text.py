"""Equal text gives equal tokens and losses by every way: store, file, standard input, `--text` and JSON lines."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.support.commands import load_once, run_command

MARK = b"\xef\xbb\xbf"
BYTES = st.binary(max_size=40) | st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b"\0", MARK, b"\xe2\x82", b"\xed\xa0\x80", b"\xff", "é😀".encode(), b"a"]),
    max_size=10,
).map(b"".join)
STRINGS = st.text(st.characters(exclude_categories=()) | st.sampled_from("\r\n\0\ufeff\ud800\udbff\udc80\udfff"))
FEW = settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
MANY = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
Losses = dict[str, list[float]]


@pytest.fixture
def workdir(byte_run, monkeypatch):
    load_once(monkeypatch)
    return byte_run


def expected(data: bytes) -> list[int]:
    """Returns the ids of bytes by the documented rules."""
    return [byte + 3 for byte in data.removeprefix(MARK).decode("utf-8", "replace").encode()]


def scored(workdir: Path, *options: object, stdin: bytes = b"") -> tuple[list[int], list[float]] | None:
    """Returns the tokens and losses of one text by `score`; None if it has no token to score."""
    fixed = ("score", "--workdir", workdir, "--batch-size", 1, "--jsonl", "-")
    ended = run_command(*fixed, *options, stdin=stdin)
    if ended.code:
        assert ended.code == (1 if "--texts" in options else 2)
        assert "nothing to score" in ended.out + ended.err
        return None
    (record,) = ended.records
    return record["tokens"], record["nats"]


def in_store(workdir: Path, folder: Path, source: str) -> dict[str, tuple[list[int], list[float]]]:
    """Prepares the texts of a folder, evaluates the run on them, and returns tokens and losses by document name."""
    data = {"source": source, "input": str(folder), "store": str(folder / "store"), "workers": 1}
    data |= {"validation_percent": 0, "test_percent": 0} | ({"name_field": "name"} if source == "jsonl" else {})
    given_data = [word for name, value in data.items() for word in ("--gin-param", f"PrepareConfig.{name}={value!r}")]
    assert run_command("prepare", *given_data).code == 0
    out = folder / "out"
    store = ("--gin-param", f"DataConfig.store='{folder / 'store'}'", "--split", "train")
    assert run_command("evaluate", "--workdir", workdir, *store, "--tokens", "--out", out).code == 0
    names = parquet.read_table(out / "documents.parquet").to_pydict()
    tokens = parquet.read_table(out / "tokens.parquet").to_pydict()
    found: dict[str, Any] = {name: ([], []) for name in names["name"]}
    name_of = dict(zip(names["document"], names["name"], strict=True))
    for document, token, nats in zip(tokens["document"], tokens["token"], tokens["nats"], strict=True):
        found[name_of[document]][0].append(token)
        found[name_of[document]][1].append(nats)
    return {name: pair for name, pair in found.items() if pair[0]}


def assert_alike(
    ids: list[int], ways: Iterator[tuple[list[int], list[float]] | None], stored: tuple[list[int], list[float]] | None
) -> None:
    """Asserts that every way has the ids after the first, and equal losses; the store's up to rounding."""
    first, *others = ways
    if len(ids) < 2:
        assert [first, *others, stored] == [None] * (len(others) + 2)
        return
    assert first is not None
    assert stored is not None
    for result in (first, *others):
        assert result is not None
        assert result[0] == stored[0] == ids[1:]
        assert result[1] == first[1]
        np.testing.assert_allclose(result[1], stored[1], rtol=0, atol=1e-4)


def check_bytes(workdir: Path, texts: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, data in enumerate([b"one document with tokens", *texts]):
            (folder / f"{number}.txt").write_bytes(data)
        stored = in_store(workdir, folder, "text_folder")
        for number, data in enumerate(texts, 1):
            file, lines = folder / f"{number}.txt", folder / "lines"
            lines.write_text(json.dumps(data.decode("utf-8", "replace")))

            def ways(data: bytes = data, file: Path = file, lines: Path = lines) -> Iterator[Any]:
                yield scored(workdir, "--text-file", file)
                yield scored(workdir, stdin=data)
                yield scored(workdir, "--texts", lines)
                if b"\0" not in data:
                    yield scored(workdir, "--text", data.decode("utf-8", "surrogateescape"))

            assert_alike(expected(data), ways(), stored.get(f"{number}.txt"))


def check_strings(workdir: Path, texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        named = [{"name": f"d{n}", "text": text} for n, text in enumerate(["one document with tokens", *texts])]
        (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, named)))
        stored = in_store(workdir, folder, "jsonl")
        for number, text in enumerate(texts, 1):
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            lines = folder / "lines"
            lines.write_text(json.dumps(text))

            def ways(whole: str = whole, lines: Path = lines) -> Iterator[Any]:
                yield scored(workdir, "--texts", lines)
                yield scored(workdir, stdin=whole.encode())
                if "\0" not in whole:
                    yield scored(workdir, "--text", whole)

            assert_alike(expected(whole.encode()), ways(), stored.get(f"d{number}"))


@pytest.mark.slow
@FEW
@given(st.lists(BYTES, min_size=2, max_size=4))
@example([b"a\r\nb\rc\n", MARK + MARK + b"\xe2\x82\xff\r\n", b"", b"x", b"\0a\0\x1a"])
def test_bytes_are_scored_alike_by_every_way(workdir, texts):
    check_bytes(workdir, texts)


@FEW
@given(st.lists(STRINGS, min_size=2, max_size=4))
@example(["a\ud800\r\n", "\ufeff\ud83d\ude00", "\udc80\udcff\0", "\ufeff"])
def test_strings_are_scored_alike_by_every_way(workdir, texts):
    check_strings(workdir, texts)


@pytest.mark.slow
@MANY
@given(st.lists(BYTES, min_size=2, max_size=6))
def test_any_bytes_are_scored_alike_by_every_way(workdir, texts):
    check_bytes(workdir, texts)


@pytest.mark.slow
@MANY
@given(st.lists(STRINGS, min_size=2, max_size=6))
def test_any_strings_are_scored_alike_by_every_way(workdir, texts):
    check_strings(workdir, texts)
