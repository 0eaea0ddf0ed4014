"""Faults during a run lose nothing. `make test-faults` prints a table of faults and outcomes."""

import dataclasses
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from block_recurrent.config import MeshConfig, RunConfig
from block_recurrent.training.metric_writer import read_metrics
from tests.support.run_training import write_run
from tests.support.workdirs import run_config

pytestmark = pytest.mark.faults

KILLS = {1: 12, 2: 8}  # random kills, by the number of processes
DEVICES = 8
OUTCOMES: list[tuple[str, str]] = []


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    width = max((len(fault) for fault, _ in OUTCOMES), default=0)
    print("\n" + "\n".join(f"{fault:{width}}  {outcome}" for fault, outcome in OUTCOMES))


class Runs:
    """Starts runs of one configuration as processes."""

    def __init__(self, folder: Path, run: RunConfig):
        self.file = folder / "run.json"
        write_run(run, self.file)

    def start(self, workdir: Path, count: int = 1) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("", 0))
            coordinator = f"localhost:{free.getsockname()[1]}"
        flags = f"--xla_force_host_platform_device_count={DEVICES // count} --xla_backend_optimization_level=0"
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-m", "tests.support.run_training", str(self.file), str(workdir)]
        return [
            subprocess.Popen(
                [*command, *([coordinator, str(count), str(index)] if count > 1 else [])],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in range(count)
        ]

    def finish(self, workdir: Path, count: int = 1) -> str:
        """Runs to the end and returns the output of the primary process."""
        processes = self.start(workdir, count)
        outputs = [process.communicate(timeout=300)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * count, outputs
        return outputs[0]


def kill(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()


def results(workdir: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(epath.Path(workdir)) if line["group"] != "speed"]


@pytest.fixture(scope="module")
def run(store_folder):
    base = run_config(store_folder, num_steps=40, checkpoint_every=3, eval_every=20)
    return dataclasses.replace(
        base, data=dataclasses.replace(base.data, batch_size=8), mesh=MeshConfig(fsdp=2, tensor=2)
    )


@pytest.fixture(scope="module")
def runs(run, tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("config"), run)


@pytest.fixture(scope="module")
def uninterrupted(runs, tmp_path_factory):
    """Workdirs of whole runs, by the number of processes."""
    whole = {count: tmp_path_factory.mktemp(f"whole{count}") for count in KILLS}
    for count, workdir in whole.items():
        runs.finish(workdir, count)
    return whole


@pytest.mark.parametrize("count", KILLS)
def test_random_kills_change_nothing(runs, uninterrupted, tmp_path, count):
    """Kills come soon after a start or some steps later, also while a checkpoint is written; then the run completes."""
    whole = uninterrupted[count]
    moments = random.Random(count)
    for number in range(KILLS[count]):
        processes = runs.start(tmp_path, count)
        if number % 4 == 3:
            time.sleep(moments.uniform(0, 6))
        else:
            wanted = len(results(tmp_path)) + moments.randint(1, 3)
            while len(results(tmp_path)) < wanted and processes[0].poll() is None:
                time.sleep(0.02)
            time.sleep(moments.uniform(0, 0.5))
        assert processes[0].poll() is None, processes[0].communicate()
        kill(processes)
    runs.finish(tmp_path, count)
    assert results(tmp_path) == results(whole)
    OUTCOMES.append((f"{KILLS[count]} kills at random moments, {count} process(es)", "equal metrics, all lines"))


def test_two_processes_equal_one(uninterrupted):
    one, two = uninterrupted[1], uninterrupted[2]
    for ours, expected in zip(results(two), results(one), strict=True):
        assert ours["bits_per_byte"] == pytest.approx(expected["bits_per_byte"], rel=1e-4)
    OUTCOMES.append(("2 processes instead of 1", "equal losses up to the order of sums"))


def test_sigterm_saves_and_prints_the_step(runs, uninterrupted, tmp_path):
    (process,) = runs.start(tmp_path)
    while not list(tmp_path.glob("checkpoints/3")):
        time.sleep(0.01)
        assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "saved at step" in output
    assert time.monotonic() - began < 20
    runs.finish(tmp_path)
    assert results(tmp_path) == results(uninterrupted[1])
    OUTCOMES.append(("SIGTERM", "saved, exit code 75, continued to equal metrics"))


@pytest.mark.parametrize("damage", ["truncated", "emptied", "bit flipped"])
def test_a_damaged_newest_checkpoint(runs, uninterrupted, tmp_path, damage):
    whole = uninterrupted[1]
    workdir = tmp_path / "work"
    shutil.copytree(whole, workdir)
    newest = workdir / "checkpoints" / "40"
    if damage == "emptied":
        shutil.rmtree(newest)
        newest.mkdir()
    else:
        for file in newest.glob("state/**/d/*"):  # every file with arrays: orbax decides which ones it reads
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    output = runs.finish(workdir)
    assert "checkpoints/40" in output
    assert "continuing from the checkpoint of step 39" in output
    assert (workdir / "damaged_checkpoints" / "40").exists()
    assert results(workdir) == results(whole)
    OUTCOMES.append((f"newest checkpoint {damage}", "continued from the one before; the damaged one set aside"))


def test_a_run_without_a_good_checkpoint_is_refused(runs, uninterrupted, tmp_path):
    workdir = tmp_path / "work"
    shutil.copytree(uninterrupted[1], workdir)
    for checkpoint in (workdir / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
        checkpoint.mkdir()
    (process,) = runs.start(workdir)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "none of the 3 checkpoint(s) is good" in output
    OUTCOMES.append(("every checkpoint damaged", "refused, exit code 2, nothing deleted"))


def test_a_live_run_keeps_others_out(runs, tmp_path):
    (first,) = runs.start(tmp_path)
    while not (tmp_path / "lock").exists():
        time.sleep(0.01)
        assert first.poll() is None
    time.sleep(0.2)
    (second,) = runs.start(tmp_path)
    output, _ = second.communicate(timeout=120)
    kill([first])
    assert second.returncode == 2, output
    assert f"a live run is using it (process {first.pid}" in output
    OUTCOMES.append(("a second run in the same workdir", "refused, names the first one's process"))


def test_a_full_disk(run, uninterrupted, tmp_path):
    """Training continues, saving is tried again, and the last checkpoint stays."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    try:
        runs = Runs(tmp_path, run)
        (process,) = runs.start(disk / "work")
        assert process.stdout is not None
        while not (disk / "work" / "checkpoints" / "6").exists():
            time.sleep(0.01)
            assert process.poll() is None
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(b"0" * 4096):
                    pass
            except OSError:
                pass
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "saving failed" in line and filler.exists():
                assert [path for path in (disk / "work" / "checkpoints").iterdir() if path.name.isdigit()]
                filler.unlink()
        process.communicate(timeout=120)
        assert process.returncode == 0, lines
        assert any("saving failed" in line for line in lines), lines
        assert results(disk / "work") == results(uninterrupted[1])
        assert (disk / "work" / "checkpoints" / "40").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    OUTCOMES.append(("a full disk", "training continued, saved when there was room, equal metrics"))


@pytest.mark.parametrize("mesh", [MeshConfig(data=4), MeshConfig(data=2), MeshConfig(data=1)], ids=str)
def test_another_mesh_continues(run, uninterrupted, tmp_path, mesh):
    workdir = tmp_path / "work"
    shutil.copytree(uninterrupted[1], workdir)
    for step in ("39", "40"):
        shutil.rmtree(workdir / "checkpoints" / step)
    Runs(tmp_path, dataclasses.replace(run, mesh=mesh)).finish(workdir)
    for ours, expected in zip(results(workdir), results(uninterrupted[1]), strict=True):
        assert ours["bits_per_byte"] == pytest.approx(expected["bits_per_byte"], rel=1e-4)
    OUTCOMES.append((f"continued on data {mesh.data} instead of data 2, fsdp 2, tensor 2", "equal losses"))
