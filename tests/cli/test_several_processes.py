"""`evaluate`, `compare`, `score` and `generate` in two processes compute what they compute in one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath
from pyarrow import parquet

from block_recurrent.cli import several_processes
from block_recurrent.evaluation.records import read
from block_recurrent.evaluation.results import Scores
from tests.support.commands import run_command
from tests.support.run_commands import own_lines, run_in_processes


def losses(folder: Path) -> np.ndarray:
    return parquet.read_table(folder / "tokens.parquet")["nats"].to_numpy()


def once(*command: str) -> None:
    ended = run_command(*command)
    assert ended.code == 0, ended.err


@pytest.mark.slow
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
    assert own_lines(other) == ["$ evaluate", "exit 0"]


STUDIES = ("ablations.json", "diagnostics.json", "official.json", "context.json")
DIVIDED = ["--fsdp", "4"]


def content(path: Path) -> dict[str, Any]:
    """Returns a result without the circumstances of its evaluation."""
    read = json.loads(path.read_text())
    return {name: value for name, value in read.items() if name != "provenance"}


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def both(tmp_path: Path, command: list[str], out: str) -> tuple[Path, Path]:
    """Runs a command that writes to a path in two processes and in one, and returns the two paths."""
    paths = []
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "result")
    run_in_processes(tmp_path, [[*command, out, str(paths[0])]], count=2, devices=4)
    once(*command, out, str(paths[1]))
    return paths[0], paths[1]


@pytest.mark.slow
def test_two_processes_measure_every_study_as_one(byte_run, tmp_path):
    studies = ["--tokens", "--official", "--ablations", "--diagnostics"]
    two, one = both(tmp_path, ["evaluate", "--workdir", str(byte_run), *studies], "--out")
    for name in STUDIES:
        assert content(two / name) == content(one / name)


@pytest.mark.slow
def test_divided_parameters_change_losses_by_the_order_of_sums_alone(byte_run, tmp_path):
    command = ["evaluate", "--workdir", str(byte_run), "--tokens"]
    two, one = both(tmp_path, [*command, *DIVIDED], "--out")
    once(*command, "--out", str(tmp_path / "whole"))
    whole = losses(tmp_path / "whole")
    for divided in (losses(two), losses(one)):
        np.testing.assert_allclose(divided, whole, rtol=1e-5)
        assert divided.mean(dtype=float) == pytest.approx(whole.mean(dtype=float), rel=1e-6)
    assert (
        json.loads((two / "scores.json").read_text())["subject"]["fingerprint"]
        == (json.loads((one / "scores.json").read_text())["subject"]["fingerprint"])
    )


@pytest.mark.slow
def test_two_processes_compare_as_one(byte_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(byte_run, other, ignore=shutil.ignore_patterns("evaluation"))
    two, one = both(tmp_path, ["compare", str(byte_run), str(other), "--split", "test"], "--out")
    assert [path.name for path in sorted(two.iterdir())] == [path.name for path in sorted(one.iterdir())]
    for path in two.glob("*.json"):
        assert content(path) == content(one / path.name)


@pytest.mark.slow
@pytest.mark.parametrize("divided", [[], DIVIDED], ids=["whole", "divided"])
@pytest.mark.parametrize("command", ["score", "sample", "continue"])
def test_two_processes_answer_texts_as_one(byte_run, tmp_path, command, divided):
    """More texts than a batch, a last group that is padded, and one text alone."""
    texts = ["ab" * n + " 12 times 3" for n in range(1, 12)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    arguments = {
        "score": ["score", "--texts", str(tmp_path / "texts.jsonl"), "--batch-size", "4"],
        "sample": ["generate", "--prompts", str(tmp_path / "texts.jsonl"), "--num-tokens", "40", "--num-samples", "2"],
        "continue": ["generate", "--prompt", texts[-1], "--num-tokens", "40"],
    }
    two, one = both(tmp_path, [*arguments[command], "--workdir", str(byte_run), *divided], "--jsonl")
    ours, expected = records(two), records(one)
    assert len(ours) == {"score": 11, "sample": 22, "continue": 1}[command]
    for our, their in zip(ours, expected, strict=True):
        assert our["tokens"] == their["tokens"]
        np.testing.assert_allclose(our["nats"], their["nats"], rtol=1e-5)


@pytest.mark.slow
def test_a_state_of_two_processes_continues_in_one(byte_run, tmp_path):
    run = ["--workdir", str(byte_run), "--num-tokens"]
    prefill = ["generate", "--prompt", "12 times 3 is ", *run, "0"]
    two, one = both(tmp_path, prefill, "--save-state")
    continued = []
    for state in (two, one):
        once("generate", "--load-state", str(state), *run, "20", "--jsonl", str(tmp_path / "out.jsonl"))
        continued.append(records(tmp_path / "out.jsonl")[0]["tokens"])
    assert continued[0] == continued[1]


@pytest.mark.slow
def test_an_evaluation_of_two_processes_resumes_from_its_last_save(byte_run, tmp_path, monkeypatch):
    """Ends after two steps by an error, and continues with the same bits."""
    command = ["evaluate", "--workdir", str(byte_run), "--tokens", "--gin-param", "DataConfig.batch_size=1"]
    monkeypatch.setenv("END_PASS_AFTER", "2")
    out = ["--out", str(tmp_path / "two")]
    run_in_processes(tmp_path, [[*command, *out]], count=2, devices=4, ends="error")
    assert (tmp_path / "two" / ".partial" / "carried.npz").exists()
    monkeypatch.delenv("END_PASS_AFTER")
    monkeypatch.setenv("FIRST_STEP", "2")
    run_in_processes(tmp_path, [[*command, *out]], count=2, devices=4)
    once(*command, "--out", str(tmp_path / "one"))
    np.testing.assert_array_equal(losses(tmp_path / "two"), losses(tmp_path / "one"))


def test_processes_with_different_commands_end_with_one_error(monkeypatch):
    """The index of the process is the only difference between their command lines."""
    for words in (["x", "--process-id", "1", "y"], ["x", "--process-id=1", "y"], ["x", "--process_id", "0", "y"]):
        monkeypatch.setattr("sys.argv", ["block_recurrent", *words])
        assert several_processes._arguments() == ["x", "y"]
