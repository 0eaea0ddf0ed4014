"""The command line in processes of its own: several train together; one continues from the state that another saved."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from block_recurrent.training.metric_writer import read_metrics
from tests.support.run_commands import own_lines

pytestmark = pytest.mark.slow

SMALL = {
    "ModelConfig.embed_dim": 16,
    "ModelConfig.num_heads": 2,
    "ModelConfig.head_dim": 8,
    "ModelConfig.mlp_dim": 32,
    "ModelConfig.window_length": 8,
    "ModelConfig.num_states": 4,
    "DataConfig.segment_length": 16,
    "DataConfig.batch_size": 8,
    "TrainConfig.num_steps": 6,
    "TrainConfig.log_every": 1,
    "TrainConfig.checkpoint_every": 2,
}


def launch(store: Path, workdir: Path, count: int, *extra: str) -> list[str]:
    """Runs `train` in `count` processes that share 8 devices, and returns the output of each."""
    with socket.socket() as free:
        free.bind(("", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={8 // count} --xla_backend_optimization_level=0"
    command = [sys.executable, "-m", "block_recurrent", "train", "--gin-file", "gin/runs/quickstart.gin"]
    command += ["--workdir", str(workdir), *extra]
    for name, value in (SMALL | {"DataConfig.store": f"'{store}'"}).items():
        command += ["--gin-param", f"{name}={value}"]
    processes = []
    for index in range(count):
        together = ["--coordinator", coordinator, "--num-processes", str(count), "--process-id", str(index)]
        processes.append(
            subprocess.Popen(
                [*command, *(together if count > 1 else [])],
                env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "COLUMNS": "200"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    ends = "\n\n".join(output[-4000:] for output in outputs)
    assert [process.returncode for process in processes] == [0] * count, ends
    return outputs


def losses(workdir: Path) -> list[float]:
    return [line["bits_per_byte"] for line in read_metrics(epath.Path(workdir)) if line["group"] != "speed"]


def test_two_processes_train_and_evaluate_like_one(store_folder, tmp_path):
    primary, other = launch(store_folder, tmp_path / "two", 2, "--profile", "3:4")
    launch(store_folder, tmp_path / "one", 1)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert "2 processes" in primary
    assert own_lines(other) == []
    assert "trace of steps 3 to 4" in primary
    assert list((tmp_path / "two" / "profile").rglob("*.xplane.pb"))


def test_a_long_prompt_is_prefilled_once_and_continued_in_another_process(store_folder, tmp_path):
    """A prompt of 100,000 tokens that is saved as a state continues like the prompt itself in one process."""
    launch(store_folder, tmp_path / "run", 1)
    book = tmp_path / "book.txt"
    book.write_text("".join(f"{n} times 7 is {7 * n};\n" for n in range(10_000))[:100_000])
    generate = [sys.executable, "-m", "block_recurrent", "generate", "--workdir", str(tmp_path / "run")]

    def run(*arguments: object) -> None:
        subprocess.run([*generate, *map(str, arguments)], check=True, capture_output=True)

    state, parts, whole = tmp_path / "book.state", tmp_path / "parts.jsonl", tmp_path / "whole.jsonl"
    run("--prompt-file", book, "--num-tokens", 0, "--save-state", state)
    run("--load-state", state, "--num-tokens", 200, "--seed", 1, "--jsonl", parts)
    run("--prompt-file", book, "--num-tokens", 200, "--seed", 1, "--jsonl", whole)
    ours, expected = json.loads(parts.read_text()), json.loads(whole.read_text())
    assert [ours[name] for name in ("tokens", "nats", "text")] == [
        expected[name] for name in ("tokens", "nats", "text")
    ]
    assert len(ours["tokens"]) == 200
