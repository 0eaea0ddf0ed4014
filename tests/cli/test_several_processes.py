"""`evaluate`, `compare`, `score` and `generate` in two processes compute what they compute in one."""

import json
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from pyarrow import parquet

from block_recurrent.evaluation.records import read
from block_recurrent.evaluation.results import Scores
from tests.support.commands import run_command
from tests.support.run_commands import run_in_processes


def losses(folder: Path) -> np.ndarray:
    return parquet.read_table(folder / "tokens.parquet")["nats"].to_numpy()


def once(*command: str) -> None:
    ended = run_command(*command)
    assert ended.code == 0, ended.err


def test_two_processes_evaluate_as_one(byte_run, tmp_path):
    def command(out: str) -> list[str]:
        return ["evaluate", "--workdir", str(byte_run), "--tokens", "--out", str(tmp_path / out)]

    (first,), (other,) = run_in_processes(tmp_path, [command("two")], count=2, devices=4)
    once(*command("one"))
    np.testing.assert_array_equal(losses(tmp_path / "two"), losses(tmp_path / "one"))
    two, one = (read(Scores, epath.Path(tmp_path / name)) for name in ("two", "one"))
    assert two is not None
    assert one is not None
    assert two.bits_per_byte == one.bits_per_byte
    assert "written to" in first
    assert [line for line in other.splitlines() if not line.startswith("[Gloo]")] == ["$ evaluate", "exit 0"]


@pytest.mark.slow
def test_two_processes_compute_every_command_as_one(byte_run, tmp_path):
    """With whole parameters bit for bit; with divided parameters up to the order of sums."""
    run_config = json.loads((byte_run / "run.json").read_text())
    assert run_config
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps("ab" * n + " 12 times 3") for n in range(1, 12)))
    (tmp_path / "one.txt").write_text("7 times 7 is ")

    def commands(out: Path) -> list[list[str]]:
        out.mkdir()
        run, texts = ["--workdir", str(byte_run)], str(tmp_path / "texts.jsonl")
        divided = ["--fsdp", "4"]
        evaluate = ["evaluate", *run, "--tokens", "--official"]
        score = ["score", *run, "--texts", texts, "--batch-size", "4", "--jsonl"]
        generate = ["generate", *run, "--num-tokens", "40", "--jsonl"]
        return [
            [*evaluate, "--ablations", "--diagnostics", "--out", str(out / "whole")],
            [*evaluate, "--out", str(out / "divided"), *divided],
            ["compare", str(byte_run), str(byte_run), "--split", "test", "--out", str(out / "compared")],
            [*score, str(out / "scores.jsonl")],
            [*score, str(out / "scores_divided.jsonl"), *divided],
            [*generate, str(out / "texts.jsonl"), "--prompts", texts, "--num-samples", "2"],
            [*generate, str(out / "text.jsonl"), "--prompt-file", str(tmp_path / "one.txt")],
            [*generate, str(out / "divided.jsonl"), "--prompts", texts, "--greedy", *divided],
        ]

    run_in_processes(tmp_path, commands(tmp_path / "two"), count=2, devices=4)
    for command in commands(tmp_path / "one"):
        once(*command)
