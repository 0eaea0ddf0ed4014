"""The walk of docs/extending.md through the commands, and records of modules that are missing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from block_recurrent.cli import gin_files
from block_recurrent.config import ModelConfig
from block_recurrent.data.sources import catalog
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.model.flops import forward_flops
from tests.support.commands import run_command
from tests.support.extensions import PAGE, import_examples, write_examples
from tests.support.workdirs import run_config, save_untrained

ROOT = Path(__file__).parents[2]
TINY = (
    *("ModelConfig.embed_dim=16", "ModelConfig.num_layers=2", "ModelConfig.recurrent_layers=(1,)"),
    *("ModelConfig.num_states=4", "ModelConfig.mlp_dim=32", "ModelConfig.head_dim=8", "ModelConfig.window_length=8"),
    *("DataConfig.segment_length=16", "DataConfig.batch_size=2", "OptimizerConfig.decay_steps=20"),
    *(
        "TrainConfig.checkpoint_every=2",
        "TrainConfig.eval_every=2",
        "TrainConfig.eval_steps=2",
        "TrainConfig.log_every=2",
    ),
    *(
        "TrainConfig.state_report_every=2",
        "TrainConfig.state_report_documents=2",
        "TrainConfig.state_report_segments=2",
    ),
)


def gin_params(*params: str) -> list[str]:
    return [word for param in params for word in ("--gin-param", param)]


@pytest.fixture(scope="module")
def scalar_run(store_folder, tmp_path_factory):
    """The workdir of an untrained model with the scalar gate."""
    import_examples(tmp_path_factory.mktemp("examples"), "scalar_gate")
    run = run_config(store_folder)
    object.__setattr__(run, "model", ModelConfig(**{**vars(run.model), "gate": "scalar"}))
    return save_untrained(run, tmp_path_factory.mktemp("scalar_run"))


def without_module(path: Path, where: Path, gate: str, module: str) -> Any:
    """Writes a record as one whose gate and module this process does not know; returns the original."""
    record = json.loads(path.read_text())
    text = json.dumps(record).replace('"gate": "scalar"', f'"gate": "{gate}"')
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(text.replace('"scalar_gate"', f'"{module}"'))
    return record


def test_run_export_and_state_record_the_module_and_a_missing_one_is_named(scalar_run, tmp_path):
    for model in (("--workdir", scalar_run), ("--model", tmp_path / "exported")):
        if model[0] == "--model":
            ended = run_command("export", "--workdir", scalar_run, "--out", tmp_path / "exported")
            assert ended.code == 0, ended.err
        ended = run_command(
            "generate",
            *model,
            "--prompt",
            "3 times",
            "--num-tokens",
            4,
            "--seed",
            1,
            "--save-state",
            tmp_path / "state",
        )
        assert ended.code == 0, ended.err
    missing = "ModelConfig.gate = 'absent' is defined in the module stranger, which is not imported"
    record = without_module(scalar_run / "run.json", tmp_path / "run" / "run.json", "absent", "stranger")
    assert record["modules"] == {"gate": "scalar_gate"}
    exported = tmp_path / "exported" / "config.json"
    assert without_module(exported, exported, "absent", "stranger")["modules"] == {"gate": "scalar_gate"}
    for command in (
        ("generate", "--workdir", tmp_path / "run", "--prompt", "x"),
        ("evaluate", "--workdir", tmp_path / "run"),
        ("report", tmp_path / "run", "--out", tmp_path / "report.html"),
        ("generate", "--model", tmp_path / "exported", "--prompt", "x"),
    ):
        ended = run_command(*command)
        assert (ended.code, missing in ended.err) == (2, True), ended.err
        assert "add --import stranger to the command" in ended.err
    content = (tmp_path / "state").read_bytes()
    (tmp_path / "other").write_bytes(
        content.replace(b'scalar\\"', b'absent\\"').replace(b"scalar_gate", b"stranger_gt")
    )
    ended = run_command("generate", "--workdir", scalar_run, "--load-state", tmp_path / "other", "--prompt", "x")
    assert ended.code == 2
    assert "other: ModelConfig.gate = 'absent' is defined in the module stranger_gt" in ended.err


def test_a_gin_line_imports_the_module(tmp_path, monkeypatch):
    write_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    gin_files.parse(["scalar.gin"], None)
    run = gin_files.configured_run()
    assert run.model.gate == "scalar"
    assert forward_flops(run.model, run.data.segment_length)["state cell"] > 0
    assert "import scalar_gate" in gin_files.operative_config()
    (tmp_path / "scalar.gin").write_text((tmp_path / "scalar.gin").read_text().replace("scalar_gate", "lost_gate"))
    ended = run_command("describe", "--gin-file", "scalar.gin")
    assert ended.code == 2
    assert "lost_gate" in ended.err


def test_a_source_outside_the_package_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "SOURCES", dict(catalog.SOURCES))
    sys.modules.pop("subtitles", None)
    import_examples(tmp_path, "subtitles")
    for number in range(3):
        text = f"1\n00:00:01,000 --> 00:00:02,000\nFilm {number}\n\n2\n00:00:03,000 --> 00:00:04,000\ngoes on\n"
        (tmp_path / "films" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "films" / "train" / f"{number}.srt").write_text(text)
    (tmp_path / "films" / "validation").mkdir()
    (tmp_path / "films" / "validation" / "last.srt").write_text("The end\n")
    ended = run_command(
        "prepare",
        *gin_params(
            "PrepareConfig.source='subtitles'",
            f"PrepareConfig.input='{tmp_path / 'films'}'",
            f"PrepareConfig.store='{tmp_path / 'store'}'",
            "PrepareConfig.workers=1",
            "PrepareConfig.splits=('train',)",
        ),
    )
    assert ended.code == 0, ended.err
    store = TokenStore.open(tmp_path / "store" / "train")
    assert store.metadata.source == "subtitles"
    assert store.metadata.counts.bytes == 3 * len("Film 0\n\ngoes on\n")


class Walk:
    """Runs documented commands in a folder, each in a process of its own."""

    def __init__(self, folder: Path, store: Path):
        self.folder, self.store = folder, store

    def run(self, command: str, *more: object, code: int = 0) -> str:
        words = command.split()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_backend_optimization_level=0"}
        ended = subprocess.run(
            [sys.executable, "-m", "block_recurrent", *words, *map(str, more)],
            cwd=self.folder,
            env=environment | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == code, ended.stderr
        return ended.stdout + ended.stderr


@pytest.mark.slow
def test_the_walk_of_the_page(store_folder, tmp_path):
    """Trains, resumes, evaluates, generates, exports and describes, each in a process of its own."""
    walk = Walk(write_examples(tmp_path), store_folder)
    documented = re.search(r"### 3. The commands\n\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert documented is not None
    lines = [line.removeprefix("python -m block_recurrent ") for line in documented[1].splitlines()]
    describe, train, evaluate, generate, export, generate_exported = (line.replace('"', "") for line in lines)
    generate, generate_exported = (line.replace("--prompt def main(", "") for line in (generate, generate_exported))
    tiny = gin_params(*TINY, f"DataConfig.store='{store_folder}'")
    sampled = ("--prompt", "3 times", "--num-tokens", 8, "--seed", 1)

    assert "scalar:skip" in walk.run(describe, *tiny)
    walk.run(train, *tiny, "--gin-param", "TrainConfig.num_steps=4")
    out = walk.run(train, *tiny, "--gin-param", "TrainConfig.num_steps=6")
    assert "continuing from the checkpoint of step 4" in out
    run = tmp_path / "runs" / "scalar"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["group"] == "train"]
    assert [line for line in steps if "gate/layer_01/attention/forget" in line]
    assert [line for line in lines if line["group"] == "states"]
    assert all("half_life_tokens/layer_01/attention/p50" in line for line in lines if line["group"] == "validation")
    assert json.loads((run / "run.json").read_text())["modules"] == {"gate": "scalar_gate"}

    refused = "add --import scalar_gate to the command"
    assert refused in walk.run(generate.replace("--import scalar_gate", ""), *sampled, code=2)
    walk.run(evaluate)
    (results,) = run.glob("evaluation/*/validation/step_6")
    (layer,) = json.loads((results / "diagnostics.json").read_text())["layers"]
    (gate,) = layer["fixed_gates"]
    assert len(set(gate["keep"])) == 1
    assert (results / "ablations.json").exists()
    saved = ("--save-state", tmp_path / "state")
    by_run = walk.run(generate, *sampled, *saved)
    walk.run(export)
    assert refused in walk.run(generate_exported.replace("--import scalar_gate", ""), *sampled, code=2)
    assert walk.run(generate_exported, *sampled) in by_run
    walk.run(generate_exported, "--load-state", tmp_path / "state", "--num-tokens", 4)
    walk.run("evaluate --import scalar_gate --model exported_scalar", *tiny[-2:], "--out", tmp_path / "scores")
    scores = [json.loads((folder / "scores.json").read_text()) for folder in (results, tmp_path / "scores")]
    assert scores[0]["nats"] == scores[1]["nats"]
