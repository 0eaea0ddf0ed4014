"""Models in results: two checkpoints of one run, or two runs of one name, are told apart; a run's samples."""

from typing import Any

import pytest
from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.evaluation.records import Subject
from block_recurrent.evaluation.run_results import ResultSet, RunResults, _samples


class Found:
    """The parts of scores, comparisons and differences that name a model."""

    def __init__(self, **parts: Any):
        self.__dict__.update(parts)


def model(name: str, step: int, folder: str = "runs") -> Subject:
    path = f"{folder}/{name}/checkpoints/{step}"
    return Subject(name=name, path=path, step=step, fingerprint=path, parameters=1, config={})


def run(name: str, *models: Subject) -> RunResults:
    evaluations: Any = [Found(scores=Found(subject=subject)) for subject in models]
    return RunResults(
        name=name, path=epath.Path(name), config={}, trained_on={}, metrics=[], evaluations=evaluations, curves=()
    )


def names(runs: list[RunResults], *models: Subject) -> list[str]:
    comparison: Any = Found(baseline=models[0], differences=[Found(subject=subject) for subject in models[1:]])
    results = ResultSet(runs=tuple(runs), comparisons=(comparison,))
    return [results.name_of(subject) for subject in models]


def test_checkpoints_of_one_run_have_their_steps():
    assert names([], model("a", 30), model("a", 60)) == ["a, step 30", "a, step 60"]
    assert names([], model("a", 30), model("b", 30)) == ["a", "b"]
    assert names([run("a", model("a", 60))], model("a", 30), model("a", 60)) == ["a, step 30", "a"]
    older_test_split = run("a", model("a", 60), model("a", 30))
    assert names([older_test_split], model("a", 30), model("a", 60)) == ["a, step 30", "a"]


def test_runs_of_one_name_and_step_have_their_paths():
    first, second = model("seed_0", 9, "runs/rec"), model("seed_0", 9, "runs/slide")
    assert names([], first, second) == [first.path, second.path]
    assert names([run("rec/seed_0", first)], first, second) == ["rec/seed_0", "seed_0"]


def test_a_damaged_file_of_samples_is_one_clear_error(tmp_path):
    file = tmp_path / "samples.jsonl"
    file.write_text('{"prompt_text": "a", "text": "b\u2028c"}\n{"prompt": 1, "error": "too long"}\n')
    assert [(s.prompt, s.text) for s in _samples(epath.Path(tmp_path))] == [("a", "b\u2028c")]
    file.write_text('{"text": "b"}\n')
    with pytest.raises(InputError, match=r"samples\.jsonl, line 1: not a record of `generate --jsonl`"):
        list(_samples(epath.Path(tmp_path)))
