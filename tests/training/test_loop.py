import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from rich.console import Console

from block_recurrent.config import OptimizerConfig, RunConfig
from block_recurrent.errors import InputError, PreemptedError
from block_recurrent.model.half_lives import constant_half_lives, half_life_metrics
from block_recurrent.training.actions import Measured
from block_recurrent.training.checkpoint import Checkpoints
from block_recurrent.training.loop import train
from block_recurrent.training.metric_writer import read_metrics
from block_recurrent.training.run_record import check_record, make_record, write_record
from block_recurrent.training.step import TrainState, abstract_train_state
from tests.support.run_training import write_run
from tests.support.workdirs import QUIET, run_config


def final_state(workdir: Path, run: RunConfig) -> TrainState:
    with Checkpoints(epath.Path(workdir)) as checkpoints:
        return checkpoints.restore(abstract_train_state(run)).state


def assert_same(a: Any, b: Any) -> None:
    def compare(x: Any, y: Any) -> None:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)

    jax.tree.map(compare, a, b)


def metrics_without_speed(workdir: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(epath.Path(workdir)) if line["group"] != "speed"]


@pytest.fixture(scope="module")
def uninterrupted(store_folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    run = run_config(store_folder)
    train(run, epath.Path(workdir), QUIET)
    return run, workdir


def test_ten_steps_equal_five_a_restart_and_five(uninterrupted, tmp_path):
    run, whole = uninterrupted
    half = dataclasses.replace(run, train=dataclasses.replace(run.train, num_steps=5))
    train(half, epath.Path(tmp_path), QUIET)
    train(run, epath.Path(tmp_path), QUIET)
    state, expected = final_state(tmp_path, run), final_state(whole, run)
    assert int(state.step) == 10
    assert_same(state, expected)  # parameters, optimizer, caches, recurrent states, keys
    lines = metrics_without_speed(tmp_path)
    assert lines == metrics_without_speed(whole)  # equal losses in all steps: the data was the same
    steps = [line["step"] for line in lines if line["group"] == "train"]
    assert steps == list(range(1, 11))


def test_a_killed_run_continues_from_its_newest_checkpoint(uninterrupted, tmp_path):
    """Steps after the checkpoint, with their metrics, are computed again."""
    run, whole = uninterrupted
    shutil.copytree(whole, tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "10")
    train(run, epath.Path(tmp_path / "killed"), QUIET)
    assert_same(final_state(tmp_path / "killed", run), final_state(whole, run))
    assert metrics_without_speed(tmp_path / "killed") == metrics_without_speed(whole)


class Recorder:
    """A user's action with measurements: every third step."""

    def __init__(self):
        self.steps: list[int] = []

    def due(self, step: int) -> bool:
        return step % 3 == 0

    def run(self, step: int, state: TrainState) -> Measured:
        assert int(state.step) == step
        self.steps.append(step)
        return Measured(group="mine", values={"twice": 2 * step, "name": f"step {step}"}, sentences=("measured",))


class SignalAt:
    """Sends this process a signal at one step."""

    def __init__(self, step: int, number: int = signal.SIGTERM):
        self._step, self._number = step, number

    def due(self, step: int) -> bool:
        return step == self._step

    def run(self, step: int, state: TrainState) -> None:
        os.kill(os.getpid(), self._number)


@pytest.mark.slow
def test_a_users_action_runs_at_its_steps_and_not_again_after_a_resume(uninterrupted, tmp_path):
    run, whole = uninterrupted
    before, after, finished = Recorder(), Recorder(), Recorder()
    printed = io.StringIO()
    with pytest.raises(PreemptedError, match="asked to stop at step 6: saved at step 6"):
        train(run, epath.Path(tmp_path), Console(file=printed, width=500), actions=[before, SignalAt(6)])
    assert before.steps == [0, 3, 6]
    assert ["step 6: measured" in printed.getvalue(), "step 9: measured" in printed.getvalue()] == [True, False]
    train(run, epath.Path(tmp_path), QUIET, actions=[after])
    assert after.steps == [9]
    train(run, epath.Path(tmp_path), QUIET, actions=[finished])
    assert finished.steps == []
    assert_same(final_state(tmp_path, run), final_state(whole, run))
    lines = metrics_without_speed(tmp_path)
    assert [line for line in lines if line["group"] == "mine"] == [
        {"step": step, "group": "mine", "twice": 2 * step, "name": f"step {step}"} for step in (0, 3, 6, 9)
    ]
    assert [line for line in lines if line["group"] != "mine"] == metrics_without_speed(whole)
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert [events.count(b"mine/twice"), events.count(b"mine/name")] == [4, 0]  # numbers alone


def test_evaluations_hold_the_half_lives_of_fixed_gates(uninterrupted):
    run, whole = uninterrupted
    *_, line = [line for line in metrics_without_speed(whole) if line["group"] == "validation"]
    found = {name: value for name, value in line.items() if name.startswith("half_life")}
    assert found == half_life_metrics(constant_half_lives(run.model, final_state(whole, run).params))
    assert len(found) == 4


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 10])
def test_a_signal_during_an_evaluation_interrupts_it_and_the_next_start_repeats_it(uninterrupted, tmp_path, step):
    run, whole = uninterrupted
    with pytest.raises(PreemptedError, match=f"asked to stop at step {step}: saved at step {step}"):
        train(run, epath.Path(tmp_path), QUIET, actions=[SignalAt(step)])
    assert step not in [line["step"] for line in metrics_without_speed(tmp_path) if line["group"] == "validation"]
    train(run, epath.Path(tmp_path), QUIET)
    assert_same(final_state(tmp_path, run), final_state(whole, run))
    assert metrics_without_speed(tmp_path) == metrics_without_speed(whole)


@pytest.mark.slow
def test_a_trace_covers_its_steps(store_folder, tmp_path, monkeypatch):
    """Evaluations next to the traced steps are not part of the trace."""
    calls = []

    def start_trace(folder, profiler_options):
        assert profiler_options.python_tracer_level == 0
        calls.append(folder)

    monkeypatch.setattr(jax.profiler, "start_trace", start_trace)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    printed = io.StringIO()
    run = run_config(store_folder, num_steps=4)
    train(run, epath.Path(tmp_path), Console(file=printed, width=500), profile=range(2, 9))
    assert calls == [str(tmp_path / "profile"), "stop"]
    assert "trace of steps 2 to 3 in" in printed.getvalue()


@pytest.mark.slow
def test_sigkill_at_any_moment_changes_nothing(uninterrupted, tmp_path):
    run, whole = uninterrupted
    write_run(run, tmp_path / "run.json")
    workdir = tmp_path / "work"
    command = [sys.executable, "-m", "tests.support.run_training", str(tmp_path / "run.json"), str(workdir)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while not (workdir / "checkpoints" / "5").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True)
    assert_same(final_state(workdir, run), final_state(whole, run))


@pytest.mark.parametrize("num_steps", [10, 7])
def test_a_finished_run_only_reports(uninterrupted, num_steps):
    run, whole = uninterrupted
    before = read_metrics(epath.Path(whole))
    shorter = dataclasses.replace(run, train=dataclasses.replace(run.train, num_steps=num_steps))
    result = train(shorter, epath.Path(whole), QUIET)
    assert read_metrics(epath.Path(whole)) == before
    assert (result.first_evaluation["step"], result.last_evaluation["step"]) == (0, 10)
    assert result.last_evaluation["complete"]


@pytest.mark.slow
def test_a_truncated_checkpoint_is_named_in_one_line(uninterrupted, tmp_path, capfd):
    """Reads of its other arrays end after orbax has closed its event loop; they print nothing."""
    run, whole = uninterrupted
    shutil.copytree(whole, tmp_path / "work")
    for file in (tmp_path / "work" / "checkpoints" / "10").glob("state/**/d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    printed = io.StringIO()
    train(run, epath.Path(tmp_path / "work"), Console(file=printed, width=500))
    assert "checkpoints/10: cannot be read" in printed.getvalue()
    assert "continuing from the checkpoint of step 5" in printed.getvalue()
    assert "Event loop is closed" not in capfd.readouterr().err


def test_another_length_of_a_decay_is_refused_with_the_choices(store_folder, tmp_path):
    run = run_config(store_folder)

    def record(schedule: str, num_steps: int, decay_steps: int | None = None) -> dict[str, Any]:
        optimizer = OptimizerConfig(schedule=schedule, decay_steps=decay_steps)  # pyright: ignore[reportArgumentType]
        settings = dataclasses.replace(run.train, num_steps=num_steps)
        return make_record(dataclasses.replace(run, optimizer=optimizer, train=settings), {})

    workdir = epath.Path(tmp_path)
    write_record(workdir, record("cosine", 20))
    check_record(workdir, record("cosine", 20))
    for num_steps in (10, 40):
        with pytest.raises(InputError) as raised:
            check_record(workdir, record("cosine", num_steps))
        assert f"decays over 20 steps, not {num_steps}" in str(raised.value)
        assert "--gin-param OptimizerConfig.decay_steps=20" in str(raised.value)
        assert "--init-from" in str(raised.value)
        check_record(workdir, record("cosine", num_steps, 20))
    for schedule in ("rsqrt", "constant"):  # they do not decay over the run's length
        write_record(workdir, record(schedule, 20))
        check_record(workdir, record(schedule, 40))


@pytest.mark.slow
def test_the_first_evaluation_may_be_shorter(store_folder, tmp_path):
    run = run_config(store_folder, num_steps=2, eval_every=2, first_eval_steps=1)
    result = train(run, epath.Path(tmp_path / "run"), QUIET)
    assert not result.first_evaluation["complete"]
    assert result.last_evaluation["complete"]


@pytest.mark.slow
def test_the_loss_falls(store_folder, tmp_path):
    run = run_config(store_folder, num_steps=60, eval_every=100, checkpoint_every=100)
    result = train(run, epath.Path(tmp_path), QUIET)
    assert result.last_evaluation["bits_per_byte"] < 0.8 * result.first_evaluation["bits_per_byte"]


def test_a_run_recorded_before_a_field_existed_is_continued(uninterrupted, tmp_path):
    _, whole = uninterrupted
    record = json.loads((Path(whole) / "run.json").read_text())
    del record["config"]["model"]["layer"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    check_record(epath.Path(tmp_path), json.loads((Path(whole) / "run.json").read_text()))


def test_another_run_in_the_workdir_is_refused_and_the_fields_are_named(uninterrupted):
    run, whole = uninterrupted
    model = dataclasses.replace(run.model, num_states=5)
    with pytest.raises(InputError, match=r"holds another run.*config.model.num_states: 4 there, 5 asked for"):
        train(dataclasses.replace(run, model=model), epath.Path(whole), QUIET)
    longer = dataclasses.replace(run.data, seed=1)
    with pytest.raises(InputError, match=r"config.data.seed: 0 there, 1 asked for"):
        train(dataclasses.replace(run, data=longer), epath.Path(whole), QUIET)


def test_means_that_change_the_training_are_refused_on_resume(uninterrupted):
    run, whole = uninterrupted
    gates = dataclasses.replace(run.optimizer, gate_rate_multiplier=30.0)
    with pytest.raises(InputError, match=r"config.optimizer.gate_rate_multiplier: 1.0 there, 30.0 asked for"):
        train(dataclasses.replace(run, optimizer=gates), epath.Path(whole), QUIET)
    model = dataclasses.replace(run.model, gate_init_bias=2.0)
    with pytest.raises(InputError, match=r"config.model.gate_init_bias: None there, 2.0 asked for"):
        train(dataclasses.replace(run, model=model), epath.Path(whole), QUIET)


def test_more_token_ids_than_rows_of_the_embedding_are_refused(store_folder, tmp_path):
    run = run_config(store_folder)
    small = dataclasses.replace(run, model=dataclasses.replace(run.model, vocab_size=100))
    with pytest.raises(InputError, match=r"ModelConfig.vocab_size = 100: must be at least 259"):
        train(small, epath.Path(tmp_path), QUIET)
    assert not list(tmp_path.iterdir())


def test_a_corrupted_store_is_refused_before_training(store_folder, tmp_path):
    shutil.copytree(store_folder, tmp_path / "store")
    chunk = max((tmp_path / "store" / "train" / "tokens").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(content)
    with pytest.raises(InputError, match=str(tmp_path / "store")):
        train(run_config(tmp_path / "store"), epath.Path(tmp_path / "work"), QUIET)
    assert not (tmp_path / "work").exists()


def test_tensorboard_events_are_written(uninterrupted):
    _, whole = uninterrupted
    assert list((whole / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_a_complete_run_compiles_no_step(store_folder, tmp_path, monkeypatch):
    run = run_config(store_folder, num_steps=1, eval_every=1, checkpoint_every=1)
    first = train(run, epath.Path(tmp_path), QUIET)
    monkeypatch.setattr("block_recurrent.training.loop.compile_train_step", None)  # a call would be an error
    assert train(run, epath.Path(tmp_path), QUIET) == first
