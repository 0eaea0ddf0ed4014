"""The tree of experiment files: what each folder binds, complete runs, recipes and the examples of `gin/README.md`."""

import re
from pathlib import Path
from typing import get_args

import pytest

from block_recurrent.cli import gin_files
from block_recurrent.config import (
    DataConfig,
    EvaluationConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    PrepareConfig,
    RunConfig,
    TrainConfig,
)
from block_recurrent.config.training import Schedule

GIN = Path(__file__).parents[2] / "gin"
CLASSES = (DataConfig, EvaluationConfig, MeshConfig, ModelConfig, OptimizerConfig, PrepareConfig, TrainConfig)
WIDTHS = {"ModelConfig.embed_dim", "ModelConfig.num_heads", "ModelConfig.head_dim", "ModelConfig.mlp_dim"}
EXECUTION = {f"ModelConfig.{field}" for field in ("remat", "scan_layers", "loss_chunk", "attention_kernel")}
PRECISION = {"ModelConfig.dropout_rate", "ModelConfig.attention_dropout_rate", "ModelConfig.dtype"}
# What the files of a folder may bind: whole classes, or fields.
ALLOWED = {
    "models": {"ModelConfig"},
    "batches": {"DataConfig.segment_length", "DataConfig.batch_size"},
    "data": {"PrepareConfig", "DataConfig.store", "ModelConfig.vocab_size"},
    "recipes": {"OptimizerConfig", "TrainConfig"} | PRECISION,
    "hardware": {"MeshConfig"} | EXECUTION,
}
PARTS = [path.relative_to(GIN) for folder in ALLOWED for path in sorted((GIN / folder).rglob("*.gin"))]


def bound(*files: object) -> set[str]:
    gin_files.parse([str(file) for file in files], None)
    return {f"{cls.__name__}.{field}" for cls in CLASSES for field in gin_files.bindings(cls)}


def build(*files: str) -> RunConfig:
    gin_files.parse([f"gin/{name}.gin" for name in files], None)
    return gin_files.configured_run()


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_a_part_binds_only_the_fields_of_its_folder(part):
    allowed = ALLOWED[part.parts[0]]
    fields = bound(GIN / part)
    assert fields
    assert [name for name in fields if name not in allowed and name.partition(".")[0] not in allowed] == []


def test_model_files_leave_execution_and_dropout_to_other_files():
    for part in PARTS:
        if part.parts[0] == "models":
            assert not bound(GIN / part) & (EXECUTION | PRECISION | {"ModelConfig.vocab_size"})
        if "widths" in part.parts:
            assert bound(GIN / part) == WIDTHS


def test_the_complete_run_is_its_row_with_its_data_and_recipe():
    parts = ("table1/rec_fixed_skip", "data/pg19_tokens", "recipes/inverse_square_root")
    assert build("runs/pg19_rec_fixed_skip") == build(*parts)
    gin_files.parse(["gin/runs/pg19_rec_fixed_skip.gin"], None)
    prepared = gin_files.configured(PrepareConfig)
    gin_files.parse(["gin/data/pg19_tokens.gin"], None)
    assert prepared == gin_files.configured(PrepareConfig)


def test_the_quickstart_and_the_laptop_comparison_keep_the_widths_of_their_results():
    ours, theirs = build("runs/quickstart").model, build("laptop/rec_fixed_skip").model
    assert (ours.num_heads, ours.head_dim, ours.num_states, ours.window_length) == (2, 64, 32, 32)
    assert (theirs.num_heads, theirs.head_dim, theirs.num_states, theirs.window_length) == (2, 64, 32, 32)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("cosine", {"schedule": "cosine", "max_rate": 0.01, "min_rate": 0.001, "spike_steps": 0}),
        (
            "cosine_with_spike",
            {"schedule": "cosine", "max_rate": 0.01, "min_rate": 0.001, "spike_rate": 0.04, "spike_steps": 10_000},
        ),
        ("inverse_square_root", {"schedule": "rsqrt", "max_rate": None}),
        ("linear", {"schedule": "linear", "max_rate": 0.01, "min_rate": 0.001}),
        ("exponential", {"schedule": "exponential", "max_rate": 0.01, "min_rate": 0.001}),
        ("rsqrt_to_min", {"schedule": "rsqrt_to_min", "max_rate": 0.05, "min_rate": 0.001}),
    ],
)
def test_recipes_are_the_official_schedules(recipe, expected):
    run = build("table1/rec_fixed_skip", "data/pg19_tokens", f"recipes/{recipe}")
    assert {name: getattr(run.optimizer, name) for name in expected} == expected
    assert (run.optimizer.warmup_steps, run.optimizer.learning_rate, run.train.num_steps) == (1000, 1.0, 500_000)


def test_every_official_schedule_has_a_recipe():
    schedules = set()
    for recipe in (GIN / "recipes").glob("*.gin"):
        gin_files.parse([str(recipe)], None)
        schedules.add(gin_files.bindings(OptimizerConfig).get("schedule"))
    assert schedules - {None} == set(get_args(Schedule)) - {"constant"}


def test_the_readmes_experiment_is_complete(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (GIN / "README.md").read_text(), re.DOTALL)
    (tmp_path / "mine.gin").write_text(example)
    gin_files.parse([str(tmp_path / "mine.gin")], None)
    assert gin_files.configured_run().model.window_length == 256
    assert gin_files.configured(PrepareConfig).input == "/my/texts"


def test_the_readme_names_only_files_and_parameters_that_exist():
    text = (GIN / "README.md").read_text()
    for file in re.findall(r"gin/[\w/]+\.gin", text):
        assert (GIN.parent / file).is_file(), file
    for param in re.findall(r"`--gin-param \"?([^\"`]+)\"?`", text):
        gin_files.parse(None, [param])
