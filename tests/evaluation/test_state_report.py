"""State reports of a run: the numbers of `evaluate`, on the same tokens."""

import dataclasses
import os
import signal
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from block_recurrent.config import EvaluationConfig, MeshConfig, RunConfig
from block_recurrent.data.store.excerpt import Excerpt
from block_recurrent.data.store.open_split import open_split
from block_recurrent.errors import InputError, PreemptedError
from block_recurrent.evaluation.evaluation import Evaluation
from block_recurrent.evaluation.model_under_test import ModelUnderTest
from block_recurrent.evaluation.passes import Shape, score_split
from block_recurrent.evaluation.provenance import describe_subject
from block_recurrent.evaluation.records import Estimate
from block_recurrent.evaluation.results import Contribution
from block_recurrent.evaluation.scorer import Placement, carried
from block_recurrent.evaluation.state_report import is_dead, make_state_reports
from block_recurrent.parallel.sharding import make_mesh, shardings
from block_recurrent.training.loop import train
from block_recurrent.training.metric_writer import read_metrics
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.step import TrainState, init_train_state
from tests.cli.test_main import command  # noqa: F401
from tests.evaluation.conftest import one_pass
from tests.support.architectures import perturbed_params
from tests.support.workdirs import QUIET, run_config

EVERYTHING: Any = {"state_report_documents": 100, "state_report_segments": 100}


def reporting(store_folder, **settings: Any) -> RunConfig:
    """Returns a run of 4 steps with an lstm gate and reports at steps 0, 3 and 4 on the whole held-out split."""
    run = run_config(store_folder, num_steps=4, state_report_every=3, **EVERYTHING | settings)
    model = dataclasses.replace(run.model, gate="lstm")
    return dataclasses.replace(run, model=model, mesh=MeshConfig())  # the devices of `evaluate`: the same programs


def trained(run: RunConfig, mesh: Any = None) -> TrainState:
    """Returns a state whose parameters depend on their recurrent states: without the states the losses are higher."""
    optimizer = make_optimizer(run.optimizer, run.train.num_steps)
    params = perturbed_params(run.model, seed=1)
    state = init_train_state(run.model, optimizer, seed=0, batch_size=run.data.batch_size, params=params)
    return state if mesh is None else jax.device_put(state, shardings(mesh, state))


@pytest.mark.slow
def test_a_report_equals_evaluate_on_the_same_tokens(store_folder, tmp_path):
    run = reporting(store_folder)
    (report,), state = make_state_reports(run), trained(run)
    measured = report.run(3, state)
    line, store = measured.values, open_split(run.data, "validation", vocab_size=260)
    params: Any = state.params
    subject = describe_subject("run", "run", 3, run.model, params)
    model = ModelUnderTest(
        subject, epath.Path(tmp_path), run.model, run.data, None, store.vocabulary.fingerprint, params
    )
    evaluation = Evaluation(model, run.data, "validation", EvaluationConfig(), folder=epath.Path(tmp_path))
    with evaluation.scored() as losses:
        study = evaluation.write_ablations(losses)
        tokens = len(losses.values)
    diagnostics = evaluation.write_diagnostics()
    assert (line["documents"], line["tokens"]) == (len(store), tokens)
    found = study.contribution
    assert (line["contribution_against"], line["verdict"]) == (found.against, found.verdict)
    assert found.bits_per_byte is not None
    assert_estimate(line, "contribution_bits_per_byte", found.bits_per_byte)
    costs = {item.name: item.cost for item in study.ablations}
    names = ("reset", "initial", "window_only", "shuffled")
    for name in names:
        assert abs(costs[name].value) > 1e-3
        assert_estimate(line, f"cost_bits_per_byte/{name}", costs[name])
    assert {*names, "carried", "frozen"} == costs.keys()
    (layer,) = diagnostics.layers
    for name, field in {"state_norm": "norm", "state_change": "change", "states_share": "states_share"}.items():
        mean = np.mean([getattr(point, field) for point in layer.states])
        assert line[f"{name}/layer_01"] == pytest.approx(mean, rel=1e-5)
    (gate,) = layer.lstm_gates
    median = np.percentile(gate.half_life_tokens, 50)
    assert line["half_life_tokens/layer_01/attention/p50"] == pytest.approx(median, rel=1e-5)
    assert found.text in measured.sentences[0]


def assert_estimate(line: dict[str, Any], name: str, estimate: Estimate) -> None:
    assert estimate.low is not None
    assert estimate.high is not None
    found = [line[name], line[f"{name}/low"], line[f"{name}/high"]]
    np.testing.assert_allclose(found, [estimate.value, estimate.low, estimate.high], rtol=1e-4, atol=1e-6)


def lines_of(workdir, group: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(epath.Path(workdir)) if line["group"] == group]


class SignalAt:
    """Sends this process SIGTERM at one step."""

    def __init__(self, step: int):
        self._step = step

    def due(self, step: int) -> bool:
        return step == self._step

    def run(self, step: int, state: TrainState) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_an_interrupted_run_repeats_and_loses_no_report(store_folder, tmp_path):
    run = dataclasses.replace(reporting(store_folder), mesh=MeshConfig(data=1))
    actions, whole, parts = make_state_reports(run), tmp_path / "whole", tmp_path / "parts"
    train(run, epath.Path(whole), QUIET, actions=actions)
    with pytest.raises(PreemptedError, match="asked to stop at step 3: saved at step 3"):
        train(run, epath.Path(parts), QUIET, actions=[*actions, SignalAt(3)])
    assert [line["step"] for line in lines_of(parts, "states")] == [0, 3]
    for _ in range(2):  # the second time the run is complete
        train(run, epath.Path(parts), QUIET, actions=actions)
        assert [line["step"] for line in lines_of(parts, "states")] == [0, 3, 4]
    for group in ("states", "train", "validation"):
        assert lines_of(parts, group) == lines_of(whole, group)


@pytest.mark.slow
def test_a_state_without_effect_is_dead_after_the_stated_number_of_steps(store_folder):
    run = reporting(store_folder, state_dead_after=3)
    (report,) = make_state_reports(run)
    state = trained(run)
    output: Any = state.params["layers"]["layer_01"]["tokens"]["output"]
    output["kernel"] = output["kernel"].at[output["kernel"].shape[0] // 2 :].set(0)  # the rows of the states
    before, after = report.run(0, state), report.run(3, state)
    assert (before.values["dead"], after.values["dead"]) == (None, 1)
    assert before.values["contribution_bits_per_byte"] == pytest.approx(0, abs=1e-7)
    assert before.values["states_share/layer_01"] == 0
    assert len(before.sentences) == 1
    assert "the recurrent state is dead: after 3 steps" in after.sentences[1]
    assert "because hiding the states from the tokens costs nothing" in after.sentences[1]


@pytest.mark.slow
def test_states_that_are_the_same_in_all_documents_are_dead_although_tokens_use_them(store_folder):
    run = reporting(store_folder, state_dead_after=3)
    (report,) = make_state_reports(run)
    state = trained(run)
    gate: Any = state.params["layers"]["layer_01"]["states"]["cell"]["attention"]["gate"]
    for name, bias in {"forget_gate": 30.0, "input_gate": -30.0}.items():  # the states stay the initial ones
        gate[name] = {"kernel": 0 * gate[name]["kernel"], "bias": jnp.full_like(gate[name]["bias"], bias)}
    measured = report.run(3, state)
    assert measured.values["dead"] == 1
    assert measured.values["cost_bits_per_byte/window_only"] > 0.005
    assert measured.values["state_change/layer_01"] < 1e-6
    assert "tokens use the states, but the trained initial states serve as well" in measured.sentences[1]


@pytest.mark.parametrize(
    ("gain", "dead"),
    [
        (Estimate(value=0.006, low=0.001, high=0.01), False),
        (Estimate(value=0.006, low=-0.001, high=0.01), True),  # the interval includes 0
        (Estimate(value=0.004, low=0.003, high=0.005), True),  # rounds to 0.00
        (Estimate(value=-0.2, low=-0.3, high=-0.1), True),  # the states do harm
        (Estimate(value=0.006), False),  # one document: no interval
        (Estimate(value=0.004), True),
    ],
)
def test_the_rule_for_a_dead_state(gain, dead):
    assert (
        is_dead(Contribution(verdict="unknown", against="initial", bits_per_byte=gain, bits_per_token=gain, text=""))
        is dead
    )


@pytest.mark.slow
def test_a_run_on_a_sharded_mesh_reports_the_same(store_folder):
    run = reporting(store_folder)
    sharded = dataclasses.replace(run, mesh=MeshConfig(data=1, fsdp=2, tensor=2))
    (one,), (several,) = make_state_reports(run), make_state_reports(sharded)
    mesh = make_mesh(sharded.mesh)
    expected, found = one.run(3, trained(run)), several.run(3, trained(sharded, mesh))
    for name, value in expected.values.items():
        same = found.values[name]
        assert same == (pytest.approx(value, rel=1e-3, abs=1e-6) if isinstance(value, float) else value), name


def test_the_losses_of_an_excerpt_are_those_of_its_tokens_in_the_whole_split(tmp_path, split, model, params):
    excerpt = Excerpt.longest(split, documents=3, tokens=25)
    placement = Placement(jax.devices()[:1])
    shape = Shape(batch_size=2, segment_length=16)
    whole = one_pass(tmp_path, carried(model), params, split)
    part = score_split(carried(model), placement.put_params(params), excerpt, shape, placement=placement)
    for index, document in enumerate(excerpt.documents):
        losses = whole.of(int(document))[: excerpt.lengths[index] - 1]
        np.testing.assert_allclose(part.of(index), losses, rtol=2e-5, atol=2e-6)


def test_reports_are_off_by_default_and_for_models_without_recurrent_layers(store_folder):
    assert make_state_reports(run_config(store_folder)) == []
    run = reporting(store_folder)
    slide = dataclasses.replace(run, model=dataclasses.replace(run.model, recurrent_layers=(), num_states=0))
    assert make_state_reports(slide) == []


def test_several_processes_and_missing_data_are_refused_before_training(store_folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"DataConfig.store = .*: not there"):
        make_state_reports(reporting(tmp_path / "nowhere"))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=r"TrainConfig.state_report_every = 3: must be None with several processes"):
        make_state_reports(reporting(store_folder))


def test_the_command_hands_the_reports_to_the_training_loop(command, store_folder, tmp_path, monkeypatch):  # noqa: F811
    handed: list[Any] = []

    def capture(*arguments: Any, actions: Any, **options: Any) -> None:
        handed.append(actions)
        raise InputError("captured")

    monkeypatch.setattr("block_recurrent.training.loop.train", capture)
    arguments = ("--gin-file", "gin/runs/quickstart.gin", "--gin-param", f"DataConfig.store='{store_folder}'")
    arguments += ("--workdir", tmp_path, "--no-compilation-cache")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "block_recurrent.evaluation.state_report", None)  # an import would be an error
        assert command("train", *arguments)[0] == 2
    assert command("train", *arguments, "--gin-param", "TrainConfig.state_report_every=700")[0] == 2
    default, (report,) = handed
    assert default == []
    assert [step for step in range(1, 2000) if report.due(step)] == [700, 1400, 1600]
