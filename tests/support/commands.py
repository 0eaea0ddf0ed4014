"""Runs the command line in this process, with standard streams of any encoding."""

import contextlib
import dataclasses
import functools
import io
import json
import sys
from typing import Any
from unittest import mock

import pytest

from block_recurrent.cli.main import main
from block_recurrent.files import resolve
from block_recurrent.generation.generator import Generator
from block_recurrent.training.saved_run import SavedRun


@dataclasses.dataclass(frozen=True)
class Ended:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def run_command(*arguments: object, stdin: bytes = b"", encoding: str = "utf-8") -> Ended:
    """Runs a command; its standard output and error have the encoding, as with `PYTHONIOENCODING`."""
    written = io.BytesIO(), io.BytesIO()
    out = io.TextIOWrapper(written[0], encoding, "strict", newline="\n")
    err = io.TextIOWrapper(written[1], encoding, "backslashreplace", newline="\n")
    with (
        mock.patch.object(sys, "argv", ["block_recurrent", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8")),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out.flush()
        err.flush()
    return Ended(code, *(stream.getvalue().decode(encoding) for stream in written))


@functools.cache
def _load(path: str, batch_size: int) -> Generator:
    return Generator.of_run(SavedRun.load(path), batch_size=batch_size)


def load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `generate` and `score` load a run once, however often they are called."""

    def from_workdir(
        path: str,
        *,
        batch_size: int = 8,
        vocabulary: str | None = None,
        segment_length: None = None,
        placement: None = None,
    ) -> Generator:
        if vocabulary is not None:
            return Generator.of_run(SavedRun.load(path), batch_size=batch_size, vocabulary=vocabulary)
        return _load(str(resolve(path)), batch_size)

    monkeypatch.setattr(Generator, "from_workdir", from_workdir)
