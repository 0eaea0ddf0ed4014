"""Encodings that lack characters: what they have is printed, the rest is counted, and JSON loses nothing."""

import io
import json
import os
import shutil
import subprocess
import sys

import pytest
from rich.console import Console

from block_recurrent.cli.narrow_output import narrow_output
from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.progress import Progress
from tests.support.clock import Clock
from tests.support.commands import load_once, run_command

TEXT = "café — 日本 😀 3 times"
NARROW = ["ascii", "iso-8859-1", "cp1252", "koi8-r"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Returns a store with one document whose name and text few encodings have."""
    folder = tmp_path_factory.mktemp("narrow")
    (folder / "texts.jsonl").write_text(json.dumps({"name": TEXT, "text": TEXT}))
    prepare(
        PrepareConfig(
            source="jsonl",
            input=str(folder / "texts.jsonl"),
            name_field="name",
            store=str(folder / "store"),
            validation_percent=0,
            test_percent=0,
            workers=1,
        )
    )
    return folder / "store" / "train"


def shown_in(encoding: str, text: str = TEXT) -> str:
    """Returns the text with `?` for what the encoding lacks; a dash has a likeness."""
    return "".join(c if c.encode(encoding, "ignore") else "-" if c == "—" else "?" for c in text)


@pytest.mark.parametrize("encoding", NARROW)
def test_every_output_is_printed(store, byte_run, monkeypatch, encoding):
    load_once(monkeypatch)
    document = run_command("inspect", store, "--document", "0", encoding=encoding)
    assert (document.code, document.out) == (0, shown_in(encoding))
    lost = shown_in(encoding).count("?")
    assert f"warning: {lost} characters are not in standard output's encoding, {encoding}" in document.err
    table = run_command("inspect", store, encoding=encoding)
    assert table.code == 0
    assert "#####" in table.out or "█" in table.out  # the bars of the histogram
    generated = ("generate", "--workdir", byte_run, "--prompt", TEXT, "--num-tokens", 5, "--seed", 3)
    streamed = run_command(*generated, encoding=encoding)
    assert streamed.code == 0
    assert streamed.out.startswith(shown_in(encoding))
    boxed = run_command(*generated, "--box", encoding=encoding)
    assert boxed.code == 0
    assert shown_in(encoding) in boxed.out
    wide = run_command(*generated, "--num-samples", 2, encoding=encoding)
    assert wide.code == 0
    assert "-- prompt 0, sample 1 --" in wide.out
    helped = run_command("generate", "--help", encoding=encoding)
    assert helped.code == 0
    assert "--prompts" in helped.out
    failed = run_command("inspect", f"{TEXT}/nowhere", encoding=encoding)
    assert failed.code == 2
    assert "nowhere" in failed.err
    assert "Traceback" not in "".join(ended.err for ended in (document, table, streamed, boxed, wide, helped, failed))


@pytest.mark.parametrize("encoding", [*NARROW, "utf-8"])
def test_json_loses_nothing(byte_run, monkeypatch, encoding):
    load_once(monkeypatch)
    options = ("--prompt", TEXT, "--num-tokens", 5, "--seed", 3, "--jsonl", "-")
    ended = run_command("generate", "--workdir", byte_run, *options, encoding=encoding)
    assert ended.code == 0
    (record,) = ended.records
    assert record["prompt_text"] == TEXT
    assert bytes(t - 3 for t in record["tokens"] if t >= 3).decode("utf-8", "replace") == record["text"]
    assert ended.err == ""


def test_bars_and_spinners_are_printed_on_a_narrow_terminal(monkeypatch):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, "ascii", "strict", newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    terminal = Console(force_terminal=True, width=80)
    with narrow_output():
        with terminal.status("compiling…"):
            pass
        with Progress("epoch", 10, console=terminal, clock=Clock()) as bar:
            bar.update(5, "loss 1.5")
    stream.flush()
    shown = written.getvalue().decode("ascii")
    assert "----" in shown
    assert "compiling." in shown


def test_file_names_that_are_not_utf8_are_printed(capsys, monkeypatch):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, "utf-8", "surrogateescape", newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    with narrow_output():
        print("a\udce9b\ud800")
    stream.flush()
    assert written.getvalue() == b"a\\xe9b?\n"
    assert "warning: 1 characters" in capsys.readouterr().err


def test_a_choice_of_the_user_stays(monkeypatch):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, "ascii", "xmlcharrefreplace", newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    with narrow_output():
        print("é")
    stream.flush()
    assert written.getvalue() == b"&#233;\n"


@pytest.mark.parametrize(
    "settings",
    [{"PYTHONIOENCODING": "iso-8859-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["iso-8859-1", "C"],
)
def test_a_process_prints_what_its_terminal_has(store, settings):
    command = [sys.executable, "-m", "block_recurrent", "inspect", str(store), "--document", "0"]
    ended = subprocess.run(command, env=os.environ | settings, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode("ascii", "replace")
    encoding = settings.get("PYTHONIOENCODING", "ascii")
    assert ended.stdout.decode(encoding) == shown_in(encoding)
    assert b"Traceback" not in ended.stderr


def test_a_path_that_is_not_utf8_is_one_error(store, tmp_path):
    real = tmp_path / "r\udce9al"
    shutil.copytree(store, real)
    ended = run_command("inspect", real)
    assert ended.code == 2
    assert "the path is not UTF-8; rename the folder" in ended.err
    ended = run_command("score", "--workdir", real, "--text", "xx")
    assert ended.code == 2
    assert "the path is not UTF-8; rename the folder" in ended.err
