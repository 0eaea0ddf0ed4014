"""Trackers receive the lines of `metrics.jsonl`; their failures do not end a run."""

import dataclasses
import json
import sys
import types
from typing import Any

import pytest
from etils import epath

from block_recurrent.training.metric_writer import MetricsWriter
from block_recurrent.training.tracker import tracked
from block_recurrent.training.wandb_tracker import WandbTracker
from tests.support.commands import run_command
from tests.support.workdirs import run_config


class Recorder:
    """A tracker that keeps its calls, and fails from a step on."""

    def __init__(self, run: Any = None, workdir: Any = None, *, fails_at: int = 1000):
        self.lines: list[Any] = []
        self.closed, self._fails_at = 0, fails_at

    def write(self, step: int, group: str, values: dict[str, Any]) -> None:
        if step >= self._fails_at:
            raise ConnectionError("no route to the service")
        self.lines.append({"step": step, "group": group, **values})

    def close(self) -> None:
        self.closed += 1


def write_lines(tracker: Recorder, folder: Any, notes: list[str]) -> list[Any]:
    """Writes four lines, and returns those of `metrics.jsonl`."""
    run = run_config(folder)
    with (
        tracked(lambda run, workdir: tracker, run, folder, notes.append) as also,
        MetricsWriter(folder, step=0, also=also) as metrics,
    ):
        for step in range(4):
            metrics.write(step, "train", {"bits_per_byte": 8.0 - step})
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_tracker_receives_every_line(tmp_path):
    tracker, notes = Recorder(), []
    assert write_lines(tracker, epath.Path(tmp_path), notes) == tracker.lines
    assert (tracker.closed, notes) == (1, [])


def test_a_tracker_that_fails_is_dropped_once_and_metrics_are_complete(tmp_path):
    tracker, notes = Recorder(fails_at=2), []
    lines = write_lines(tracker, epath.Path(tmp_path), notes)
    assert len(lines) == 4
    assert tracker.lines == lines[:2]
    assert tracker.closed == 1
    assert len(notes) == 1
    assert "no route to the service" in notes[0]


class FakeWandb(types.ModuleType):
    """The functions of `wandb` that are used."""

    def __init__(self):
        super().__init__("wandb")
        self.Settings = dict
        self.started: list[Any] = []
        self.logged: list[Any] = []
        self.finished = 0

    def init(self, **arguments: Any) -> Any:
        self.started.append(arguments)
        return self

    id = "abc123"

    def define_metric(self, name: str, *, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "step")

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch) -> FakeWandb:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_run_that_continues_has_one_entry_in_wandb(wandb, tmp_path):
    run, workdir = run_config(tmp_path), epath.Path(tmp_path)
    for _ in range(2):
        tracker = WandbTracker(run, workdir)
        tracker.write(3, "validation", {"bits_per_byte": 2.5, "complete": True})
        tracker.close()
    first, second = wandb.started
    assert (first["id"], second["id"]) == (None, "abc123")
    assert first["config"] == dataclasses.asdict(run)
    assert first["project"] == "block-recurrent"
    assert wandb.logged[0] == {"step": 3, "validation/bits_per_byte": 2.5, "validation/complete": True}
    assert wandb.finished == 2


def test_the_command_passes_on_what_it_trains(wandb, store_folder, tmp_path):
    tiny = (
        *("vocab_size=260", "embed_dim=8", "num_layers=1", "num_heads=1", "head_dim=8", "mlp_dim=8"),
        "window_length=8",
    )
    params = [
        *(f"ModelConfig.{field}" for field in tiny),
        *(f"DataConfig.store='{store_folder}'", "DataConfig.segment_length=8", "DataConfig.batch_size=1"),
        *("TrainConfig.num_steps=2", "TrainConfig.log_every=1", "TrainConfig.eval_steps=1", "MeshConfig.data=1"),
    ]
    arguments = [word for param in params for word in ("--gin-param", param)]
    ended = run_command("train", "--workdir", tmp_path / "run", "--tracker", "wandb", *arguments)
    assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [values["step"] for values in wandb.logged]
    assert any("train/bits_per_byte" in values for values in wandb.logged)
    assert wandb.finished == 1


def test_an_unknown_tracker_and_a_missing_extra_are_one_error_each(monkeypatch, tmp_path):
    ended = run_command("train", "--workdir", tmp_path, "--tracker", "pencil", "--gin-file", "gin/runs/quickstart.gin")
    assert ended.code == 2
    assert "--tracker = 'pencil': must be one of 'wandb', or a tracker of an imported module" in ended.err
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError):
        WandbTracker(run_config(tmp_path), epath.Path(tmp_path))
    with pytest.raises(ImportError), tracked(WandbTracker, run_config(tmp_path), epath.Path(tmp_path), print):
        pass
