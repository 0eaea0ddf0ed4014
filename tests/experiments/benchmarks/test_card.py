"""`make check-card`: what it runs, and its exit codes. The measurements themselves need a card."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.benchmarks import card
from experiments.benchmarks.turns import Measured

ROOT = Path(__file__).parents[3]


@pytest.fixture
def started(monkeypatch):
    """Records the programs that are started, and lets them end with `codes`."""
    calls, codes = [], {"-c": 0, "-m": 0}

    def run(command, *, env, check):
        calls.append((command[1:], env))
        return SimpleNamespace(returncode=codes[command[1]])

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("sys.argv", ["card", "--no-speed"])
    return calls, codes


def test_every_fixture_is_compared_on_the_card_with_full_precision(started):
    calls, codes = started
    assert card.main() == 0
    words, environment = calls[-1]
    assert words[:3] == ["-m", "block_recurrent", "check-parity"]
    assert {Path(word) for word in words[3:]} == set((ROOT / "tests/fixtures").glob("*.npz"))
    assert environment["JAX_PLATFORMS"] == "cuda"
    assert environment["JAX_DEFAULT_MATMUL_PRECISION"] == "highest"
    codes["-m"] = 1
    assert card.main() == 1


def test_a_machine_without_a_card_is_told_so(started, capsys):
    calls, codes = started
    codes["-c"] = 1
    assert card.main() == 2
    assert len(calls) == 1
    assert "finds no device of JAX_PLATFORMS=cuda" in capsys.readouterr().err


def test_each_task_is_measured_with_both_precisions(started, monkeypatch, capsys):
    measured = []

    def measure(platform, precision, task, configuration):
        measured.append((task, precision))
        return Measured([{"seconds": 2.0}] * 3, {"tokens": 100, "compile_seconds": 1.0})

    monkeypatch.setattr(card, "measure", measure)
    monkeypatch.setattr("sys.argv", ["card", "--rows", "3"])
    assert card.main() == 0
    assert measured == [(task, precision) for task in card.TASKS for precision in ("highest", "default")]
    out = capsys.readouterr().out
    assert "3 rows of 2048 tokens" in out
    assert out.count(" 50 tokens/s") == len(measured)
