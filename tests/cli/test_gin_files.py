"""Reading experiment files: ways to name a class, errors with their places, macros and paths."""

import pytest

from block_recurrent.cli import gin_files
from block_recurrent.config import ModelConfig, TrainConfig
from block_recurrent.errors import InputError

DYNAMIC = "from __gin__ import dynamic_registration\n"
HEADER = f"{DYNAMIC}from block_recurrent import config\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "mine.gin") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    "text",
    [
        f"{DYNAMIC}from block_recurrent import config\nconfig.ModelConfig.embed_dim = 3\n",
        f"{DYNAMIC}from block_recurrent import config as c\nc.ModelConfig.embed_dim = 3\n",
        f"{DYNAMIC}import block_recurrent.config\nblock_recurrent.config.ModelConfig.embed_dim = 3\n",
        "block_recurrent.config.ModelConfig.embed_dim = 3\n",
        "config.ModelConfig.embed_dim = 3\n",
        "ModelConfig.embed_dim = 3\n",
    ],
)
def test_a_class_is_bound_under_each_of_its_names(write, text):
    gin_files.parse([write(text)], None)
    assert gin_files.bindings(ModelConfig) == {"embed_dim": 3}


def test_every_configuration_class_can_be_bound(write):
    lines = {
        "ModelConfig.embed_dim": 3,
        "DataConfig.seed": 4,
        "PrepareConfig.workers": 5,
        "OptimizerConfig.warmup_steps": 6,
        "MeshConfig.fsdp": 7,
        "TrainConfig.seed": 8,
        "EvaluationConfig.top_words": 9,
    }
    gin_files.parse([write(HEADER + "".join(f"config.{name} = {value}\n" for name, value in lines.items()))], None)
    for name, value in lines.items():
        cls, _, field = name.partition(".")
        assert gin_files.bindings(gin_files._CLASSES[cls]) == {field: value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config.ModelConfig.embed_dimm = 3\n", ":3: ModelConfig.embed_dimm: no such field; did you mean embed_dim?"),
        ("config.MeshConfig.rows = 3\n", ":3: MeshConfig.rows: no such field; MeshConfig has data, fsdp, tensor"),
        ("config.ModelConfigg.embed_dim = 3\n", "ModelConfigg"),
        ("config.ModelConfig.embed_dim = = 3\n", ":3: gin: Unable to parse value"),
        ("config.ModelConfig.embed_dim = %WIDTH\n", ":3: ModelConfig.embed_dim = %WIDTH: WIDTH is not defined"),
        ("include 'nowhere.gin'\n", ":3: include nowhere.gin: no such file"),
    ],
)
def test_a_mistake_is_named_with_its_place(write, text, message):
    file = write(HEADER + text)
    with pytest.raises(InputError) as raised:
        gin_files.parse([file], None)
    assert message in str(raised.value)
    assert file in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_mistake_in_an_included_file_is_named_with_that_file(write):
    included = write(HEADER + "config.ModelConfig.embed_dimm = 3\n", "included.gin")
    with pytest.raises(InputError, match=r"included\.gin:3: ModelConfig\.embed_dimm"):
        gin_files.parse([write(f"include '{included}'\n")], None)


def test_a_value_that_is_not_allowed_is_named_with_its_place(write):
    file = write(HEADER + "config.TrainConfig.num_steps = 0\n")
    gin_files.parse([file], None)
    with pytest.raises(InputError, match=r"TrainConfig\.num_steps = 0: must be .* \(.*mine\.gin:3\)$"):
        gin_files.configured(TrainConfig)
    gin_files.parse([file], ["TrainConfig.num_steps=-1"])
    with pytest.raises(InputError, match=r"num_steps = -1: must be .* \(--gin-param TrainConfig\.num_steps=-1\)$"):
        gin_files.configured(TrainConfig)


def test_a_removed_field_is_accepted_at_its_default(write):
    gin_files.parse([write(HEADER + "config.TrainConfig.sample_tokens = 0\nconfig.TrainConfig.num_steps = 2\n")], None)
    assert gin_files.configured(TrainConfig) == TrainConfig(num_steps=2)


def test_macros_that_contradict_each_other_are_refused(write):
    files = [write(f"STORE = '{name}'\n", f"{name}.gin") for name in ("a", "b")]
    with pytest.raises(InputError, match=r"STORE = 'a' .* contradict each other"):
        gin_files.parse(files, None)


def test_the_home_folder_is_expanded(write, tmp_path, monkeypatch):
    write("ModelConfig.embed_dim = 3\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    gin_files.parse(["~/mine.gin"], None)
    assert gin_files.bindings(ModelConfig) == {"embed_dim": 3}
