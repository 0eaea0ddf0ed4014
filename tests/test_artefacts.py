"""Files that version 0.1.0 wrote (`artefacts/0.1.0/make.sh`): each is resumed, evaluated, continued and reported."""

import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from safetensors import safe_open

from block_recurrent.cli.main import main

ROOT = Path(__file__).parents[1]
ARTEFACTS = ROOT / "tests" / "artefacts" / "0.1.0"
LOSS = 2e-4  # bits or nats: another compiler's rounding, over five steps


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the artefacts, as the working directory."""
    with tarfile.open(ARTEFACTS / "artefacts.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    for file in (*ARTEFACTS.glob("*.gin"), *ARTEFACTS.glob("*.jsonl")):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Runs a command in this process and returns what it printed."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["block_recurrent", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capfd.readouterr()
        assert not stopped.value.code, err
        return out

    return run


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", [pytest.param("recurrent", marks=pytest.mark.slow), "lstm"])
def test_a_run_is_resumed_to_the_losses_of_its_own_version(folder, run, name):
    files = ("--gin-file", "run.gin", "--gin-file", f"{name}.gin")
    out = run("train", *files, "--gin-param", "TrainConfig.num_steps=15", "--workdir", name)
    assert "continuing from the checkpoint of step 10" in out
    expected = {"recurrent": "continued_metrics.jsonl", "lstm": "continued_lstm_metrics.jsonl"}[name]
    theirs = read_lines(folder / "expected" / expected)
    ours = {(line["step"], line["group"]): line for line in read_lines(folder / name / "metrics.jsonl")}
    losses = [line for line in theirs if line["group"] != "speed"]
    assert {line["step"] for line in losses} == {*range(16)}
    for line in losses:
        assert ours[line["step"], line["group"]]["bits_per_byte"] == pytest.approx(line["bits_per_byte"], abs=LOSS)


@pytest.mark.parametrize("name", ["recurrent", "lstm"])
def test_a_run_is_evaluated_to_the_same_scores(folder, run, name):
    written = folder / name / "evaluation" / "store" / "validation" / "step_10"
    theirs = json.loads((written / "scores.json").read_text())
    shutil.rmtree(folder / name / "evaluation")
    run("evaluate", "--workdir", name, "--gin-file", "run.gin")
    ours = json.loads((written / "scores.json").read_text())
    assert ours["data"] == {**theirs["data"], "part": None}  # 0.1.0 scored whole splits alone
    assert ours["bits_per_byte"]["value"] == pytest.approx(theirs["bits_per_byte"]["value"], abs=LOSS)


@pytest.mark.slow
def test_an_export_is_evaluated_like_its_run_and_begins_another(folder, run):
    run("evaluate", "--model", "exported", "--gin-file", "run.gin", "--out", "scores")
    by_checkpoint = folder / "exported" / "evaluation" / "store" / "validation" / "step_10" / "scores.json"
    run("evaluate", "--checkpoint", "exported", "--gin-file", "run.gin")
    ours = json.loads((folder / "scores" / "scores.json").read_text())
    assert json.loads(by_checkpoint.read_text())["nats"] == ours["nats"]
    theirs = json.loads((folder / "recurrent/evaluation/store/validation/step_10/scores.json").read_text())
    assert ours["bits_per_byte"]["value"] == pytest.approx(theirs["bits_per_byte"]["value"], abs=LOSS)
    files = ("--gin-file", "run.gin", "--gin-file", "recurrent.gin", "--gin-param", "TrainConfig.num_steps=1")
    run("train", *files, "--init-from", "exported", "--workdir", "begun")
    first = read_lines(folder / "begun" / "metrics.jsonl")[0]
    assert first["bits_per_byte"] == pytest.approx(theirs["bits_per_byte"]["value"], abs=LOSS)


@pytest.mark.parametrize("source", [("--workdir", "recurrent"), ("--model", "exported")], ids=["run", "export"])
def test_a_saved_state_is_continued_and_texts_are_scored(folder, run, source):
    arguments = ("--load-state", "prompt.state", "--prompt", " 5 is", "--greedy", "--num-tokens", 20)
    run("generate", *source, *arguments, "--jsonl", "continuation.jsonl")
    run("score", *source, "--text", "3 times 4 is 12; 3 times 5 is 15;", "--jsonl", "score.jsonl")
    for file in ("continuation.jsonl", "score.jsonl"):
        (ours,), (theirs,) = read_lines(folder / file), read_lines(folder / "expected" / file)
        assert ours["tokens"] == theirs["tokens"]
        assert ours["nats"] == pytest.approx(theirs["nats"], abs=LOSS)


def test_a_store_is_read_and_is_not_prepared_again(folder, run):
    assert "962" in run("inspect", "store")
    assert "unchanged" in run("prepare", "--gin-file", "run.gin")


def test_results_and_comparison_are_read_again_and_reported(folder, run):
    tokens = folder / "recurrent/evaluation/store/validation/step_10/tokens.parquet"
    before = tokens.stat().st_mtime_ns
    run("compare", "lstm", "recurrent", "--gin-file", "run.gin", "--out", "again")
    assert tokens.stat().st_mtime_ns == before  # read, not computed again
    theirs = json.loads((folder / "comparison" / "comparison.json").read_text())
    ours = json.loads((folder / "again" / "comparison.json").read_text())
    for our, their in zip(ours["differences"], theirs["differences"], strict=True):
        for difference in (our, their):
            difference["subject"] = difference["words"]["rule"] = None  # the rule is prose
        assert our == their
    run("report", "recurrent", "lstm", "comparison", "--out", "report.html")
    page = (folder / "report.html").read_text()
    for section in ("scores", "states", "gates", "words"):
        assert f'<section id="{section}"' in page


def names_in(value: Any) -> set[str]:
    """Every key of a JSON value, those of nested objects too; keys of users' own making excepted."""
    if isinstance(value, list):
        return set().union(*map(names_in, value))
    if not isinstance(value, dict):
        return set()
    free = {"settings", "versions", "files", "config", "model", "checksums"}
    return {*value, *(name for key, inner in value.items() if key not in free for name in names_in(inner))}


def test_every_name_is_documented(folder):
    words = set(re.findall(r"[\w/.]+", (ROOT / "docs" / "files.md").read_text()))
    documented = words | {part for word in words for part in word.split("/")}
    names = set()
    for file in folder.rglob("*.json"):
        if "checkpoints" not in file.parts and file.name != "zarr.json":
            names |= names_in(json.loads(file.read_text()))
    for file in folder.rglob("*.jsonl"):
        names |= {
            re.sub(r"layer_\d+", "LAYER", name).replace("attention", "PLACE").replace("mlp", "PLACE")
            for line in read_lines(file)
            for name in line
        }
    for file in folder.rglob("*.parquet"):
        names |= set(parquet.read_schema(file).names)
    with safe_open(folder / "prompt.state", "numpy") as state:
        names |= {part for leaf in state.keys() for part in leaf.split("/") if not part.isdigit()}  # noqa: SIM118, not a dictionary
    names.remove("gate/LAYER/PLACE/admit")  # documented as `.../admit`
    assert len(names) > 100
    assert sorted(names - documented) == []
