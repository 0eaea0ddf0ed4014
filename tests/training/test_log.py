"""The log: spikes, steps that are not finite, and a full disk."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from block_recurrent.errors import NonFiniteError
from block_recurrent.training import metric_writer as metrics_module
from block_recurrent.training.log import TrainLog, spike_above
from block_recurrent.training.loop import train
from block_recurrent.training.metric_writer import MetricsWriter, read_metrics, with_current_names
from tests.support.workdirs import QUIET, run_config


def test_a_spike_is_far_above_the_lines_before_it():
    before = [2.0 + 0.05 * (-1) ** n for n in range(30)]
    assert spike_above(3.0, before) == pytest.approx(2.0, abs=0.06)
    assert spike_above(2.2, before) is None
    assert spike_above(3.0, before[:19]) is None  # too few lines
    assert spike_above(2.1, [2.0] * 30) is None  # no spread: 8 times 2 % is allowed
    assert spike_above(None, before) is None


def diverging(store_folder, **settings):
    run = run_config(store_folder, num_steps=6, eval_every=100, checkpoint_every=2, eval_steps=1, **settings)
    broken = dataclasses.replace(run.optimizer, schedule="constant", max_rate=1e30, warmup_steps=0)
    return dataclasses.replace(run, optimizer=broken)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_names_rows_and_documents(store_folder, tmp_path):
    with pytest.raises(NonFiniteError, match=r"step \d: not finite: row 0: document document \d+, tokens from"):
        train(diverging(store_folder), epath.Path(tmp_path), QUIET)
    assert all(line["group"] != "train" or line["skipped_steps"] == 0 for line in read_metrics(epath.Path(tmp_path)))


@pytest.mark.slow
def test_steps_that_are_not_finite_can_be_skipped_and_counted(store_folder, tmp_path):
    train(diverging(store_folder, nonfinite="skip"), epath.Path(tmp_path), QUIET)
    lines = [line for line in read_metrics(epath.Path(tmp_path)) if line["group"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 7))
    assert lines[-1]["skipped_steps"] == 1
    assert lines[-1]["bits_per_byte"] is None


def test_lines_hold_losses_norms_gates_and_speed(store_folder, tmp_path):
    train(run_config(store_folder, num_steps=2, peak_flops=1e12), epath.Path(tmp_path), QUIET)
    by_group: dict[str, Any] = {line["group"]: line for line in read_metrics(epath.Path(tmp_path))}
    assert by_group["train"].keys() >= {
        *("bits_per_byte", "learning_rate", "gradient_norm", "update_norm", "param_norm", "skipped_steps"),
        *("state_norm/layer_01", "gate/layer_01/attention/forget", "gate/layer_01/attention/input"),
    }
    forget, input_gate = (by_group["train"][f"gate/layer_01/attention/{name}"] for name in ("forget", "input"))
    assert forget + input_gate == pytest.approx(1, abs=1e-6)  # the fixed gate is a convex combination
    speed = by_group["speed"]
    assert 0 <= speed["data_wait"] < 1
    assert 0 < speed["model_flops_utilisation"] < 1
    assert speed["host_memory_gb"] > 0


OLD = {"gate/layer_01/attention/forget": 0.7, "gate/layer_01/attention/admit": 0.2, "nats": 1.5}
NEW = {"gate/layer_01/attention/forget": 0.7, "gate/layer_01/attention/input": 0.2, "nats": 1.5}


def test_metrics_of_the_first_version_are_read_under_their_new_names(store_folder, tmp_path):
    assert with_current_names(OLD) == NEW
    assert with_current_names(NEW) == NEW
    assert with_current_names({"admit": 1.0, "gate/admit": 2.0}) == {"admit": 1.0, "gate/admit": 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "group": "train", **OLD}) + "\n")
    assert read_metrics(epath.Path(tmp_path)) == [{"step": 1, "group": "train", **NEW}]
    settings: Any = {"bytes_per_token": 1.0, "describe_rows": lambda step, rows: "", "notify": print}
    log = TrainLog(run_config(store_folder), None, pending=[OLD], **settings)
    assert log.catch_up() == [NEW]


def test_lines_that_cannot_be_written_are_written_later_and_no_torn_line_stays(tmp_path, monkeypatch):
    messages: list[str] = []
    real_open, full = open, False

    class FullDisk:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, content):
            return self.file.write(content[: len(content) // 2] if full else content)

    monkeypatch.setattr(metrics_module, "open", lambda *a, **k: FullDisk(real_open(*a, **k)), raising=False)
    with MetricsWriter(epath.Path(tmp_path), step=0, notify=messages.append) as writer:
        writer.write(1, "train", {"loss": 3.0})
        full = True
        writer.write(2, "train", {"loss": 2.0})
        writer.write(3, "train", {"loss": 1.0})
        assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
        full = False
        writer.write(4, "train", {"loss": 0.0})
    assert [line["step"] for line in read_metrics(epath.Path(tmp_path))] == [1, 2, 3, 4]
    assert ["cannot be written" in messages[0], "written again" in messages[1], len(messages)] == [True, True, 2]


def test_a_step_that_is_not_finite_changes_nothing_and_names_its_rows(store_folder):
    from tests.training.test_step import one_step

    state, batch, step = one_step("fixed_skip")
    model_state = state.model_state
    layer = model_state.layers[1]
    assert layer.recurrent is not None
    poisoned = dataclasses.replace(layer, recurrent=layer.recurrent.at[1].set(jnp.nan))
    layers = (model_state.layers[0], poisoned, *model_state.layers[2:])
    state = dataclasses.replace(state, model_state=dataclasses.replace(model_state, layers=layers))
    after, metrics = step(state, batch)
    assert not metrics.finite
    np.testing.assert_array_equal(np.isfinite(metrics.row_losses), [True, False])
    assert (int(after.step), int(after.skipped)) == (1, 1)
    for field in ("params", "opt_state", "model_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, field), getattr(state, field))
    fresh = dataclasses.replace(batch, start_of_document=jnp.array([False, True]))
    healed, metrics = step(after, fresh)  # the row starts a document: its state is replaced
    assert metrics.finite
    assert int(healed.skipped) == 1
