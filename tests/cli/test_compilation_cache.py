"""The compilation cache: programs are found again, faults are warnings, and numbers do not change."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from etils import epath

from block_recurrent.cli import compilation_cache
from block_recurrent.training.metric_writer import read_metrics
from tests.cli.test_launch import SMALL

JIT = """
import jax, jax.numpy as jnp
from block_recurrent.cli import compilation_cache
compilation_cache._MIN_SECONDS = 0
compilation_cache.use_compilation_cache({enabled})
print(float(jax.jit(lambda x: jnp.sum(jnp.tanh(x @ x)))(jnp.ones((8, 8)))))
"""


def run(command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"XDG_CACHE_HOME": str(home), "JAX_ENABLE_COMPILATION_CACHE": "true", "COLUMNS": "300"}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=True)


def compute(home: Path, *, enabled: bool = True) -> tuple[float, str]:
    done = run(["-c", JIT.format(enabled=enabled)], home)
    return float(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def entries(home: Path) -> list[Path]:
    return [path for path in home.rglob("*-cache") if path.is_file()]


def test_programs_are_kept_by_version_and_cpu(tmp_path):
    value, output = compute(tmp_path)
    assert "warning" not in output.lower()
    assert entries(tmp_path)
    (folder,) = (tmp_path / "block_recurrent").iterdir()
    assert folder.name == f"jax-{jax.__version__}-{compilation_cache._cpu()}"
    assert compute(tmp_path)[0] == value


def test_without_the_cache_nothing_is_written(tmp_path):
    compute(tmp_path, enabled=False)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_entry_is_a_warning(tmp_path):
    value, _ = compute(tmp_path)
    for entry in entries(tmp_path):
        entry.write_bytes(b"damaged")
    again, output = compute(tmp_path)
    assert again == value
    assert "persistent compilation cache" in output


def test_an_unwritable_folder_is_a_warning(tmp_path):
    home = tmp_path / "file"
    home.write_text("not a folder")
    _, output = compute(home)
    assert f"warning: no compilation cache: {home}/block_recurrent" in output


def test_a_cache_of_the_users_own_is_left_as_it_is(tmp_path, monkeypatch):
    own = tmp_path / "own"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(own))
    compute(tmp_path / "home")
    assert own.is_dir()
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bits_with_and_without_the_cache(store_folder, tmp_path):
    def train(workdir: str, steps: int, *options: str) -> None:
        command = ["-m", "block_recurrent", "train", "--gin-file", "gin/runs/quickstart.gin"]
        settings = SMALL | {"DataConfig.store": f"'{store_folder}'", "TrainConfig.num_steps": steps}
        settings |= {"OptimizerConfig.decay_steps": 6}
        bindings = [part for name, value in settings.items() for part in ("--gin-param", f"{name}={value}")]
        run([*command, *bindings, "--workdir", str(tmp_path / workdir), *options], tmp_path / "home")

    train("whole", 6, "--no-compilation-cache")
    assert not (tmp_path / "home").exists()
    train("resumed", 4)
    assert entries(tmp_path / "home")
    train("resumed", 6)  # its programs come from the cache
    lines = {
        name: [line for line in read_metrics(epath.Path(tmp_path / name)) if line["group"] == "train"]
        for name in ("whole", "resumed")
    }
    assert lines["whole"] == lines["resumed"]
