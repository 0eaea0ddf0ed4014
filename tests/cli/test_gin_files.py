"""Reading experiment files: ways to name a class, errors with their places, macros and paths."""

import pytest

from block_recurrent.cli import gin_files
from block_recurrent.config import ModelConfig, OptimizerConfig, TrainConfig
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
        ("config.ModelConfig.embed_dim = = 3\n", ":3: config.ModelConfig.embed_dim = = 3: must be a number"),
        ("config.ModelConfig.embed_dim = %WIDTH\n", ":3: ModelConfig.embed_dim = %WIDTH: WIDTH is not defined"),
        ("include 'nowhere.gin'\n", ":3: include nowhere.gin: no such file"),
        ("include 'mine.gin'\n", ":3: include mine.gin: no such file"),
        (
            "config.ModelConfig.recurrent_layers = (%LAST,)\n",
            ":3: ModelConfig.recurrent_layers = ('%LAST',): LAST is not",
        ),
        (
            "config.ModelConfig.cell = dual\n",
            ":3: config.ModelConfig.cell = dual: text needs quotes: config.ModelConfig",
        ),
        (
            "config.DataConfig.store = /data/a b\n",
            ":3: config.DataConfig.store = /data/a b: must be a number, True, Fa",
        ),
        ("config.DataConfig.store = gs://a/b\n", ":3: config.DataConfig.store = gs://a/b: text needs quotes"),
        ("config.DataConfig.store = ~/a\n", ":3: config.DataConfig.store = ~/a: text needs quotes"),
        ("config.DataConfig.store = 'a\n", ":3: config.DataConfig.store = 'a: the closing quote ' is missing"),
        ("config.ModelConfig.feedback = true\n", ":3: config.ModelConfig.feedback = true: must be True"),
        ("config.ModelConfig.cell =\n", ":3: config.ModelConfig.cell = : a value is missing"),
        (
            "config.ModelConfig.recurrent_layers = (1,\n",
            ":3: config.ModelConfig.recurrent_layers = (1,: a bracket is not",
        ),
        ("hello\n", ":3: hello: must be NAME = VALUE"),
        ("from nowhere import thing\n", ":3: from nowhere import thing: No module named 'nowhere'"),
        ("config.ModelConfig.cell = @nothing()\n", ":3: config.ModelConfig.cell = @nothing(): "),
        ("a/config.ModelConfig.cell = 'dual'\n", ":3: a.ModelConfig.cell: scopes have no effect"),
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


def test_files_that_include_each_other_are_refused(write):
    first, second = write("", "first.gin"), write("", "second.gin")
    write(f"{HEADER}include '{second}'\n", "first.gin")
    write(f"include '{first}'\n", "second.gin")
    with pytest.raises(
        InputError, match=r"second\.gin:1: include .*first\.gin: the files include each other: .* -> .* -> "
    ):
        gin_files.parse([first], None)


def test_a_file_that_two_files_include_is_no_circle(write):
    common = write("ModelConfig.embed_dim = 3\n", "common.gin")
    files = [write(f"include '{common}'\n", f"{name}.gin") for name in ("one", "two")]
    gin_files.parse(files, None)
    assert gin_files.bindings(ModelConfig) == {"embed_dim": 3}


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("ModelConfig.cell=dual", "text needs quotes: ModelConfig.cell = 'dual'"),
        ("ModelConfig.embed_dim=%WIDTH", "WIDTH is not defined"),
        ("", "binds nothing"),
        ("# nothing", "binds nothing"),
        ("embed_dim=3", "embed_dim is no field"),
        ("Model.embed_dim=3", "no such class Model; did you mean ModelConfig?"),
        ("TrainConfig.num_steps=nan", "must be a number"),
    ],
)
def test_a_mistake_in_a_parameter_is_named_with_the_parameter(param, message):
    with pytest.raises(InputError) as raised:
        gin_files.parse(None, [param])
    assert f"--gin-param {param}" in str(raised.value).replace("''", "").replace("'# nothing'", "# nothing")
    assert message in str(raised.value)


def test_a_macro_of_a_file_can_be_set_by_a_parameter(write):
    gin_files.parse([write("WIDTH = 3\nModelConfig.embed_dim = %WIDTH\n")], ["WIDTH=5"])
    assert gin_files._CLASSES["ModelConfig"] is ModelConfig


@pytest.mark.parametrize(
    ("text", "cls", "message"),
    [
        (
            "OptimizerConfig.max_rate = 0.1\nOptimizerConfig.min_rate = 0.5\n",
            OptimizerConfig,
            r"max_rate = 0\.1: must be at least OptimizerConfig\.min_rate = 0\.5; raise .* \(.*mine\.gin:1\)",
        ),
        (
            f"TrainConfig.num_steps = {10**20}\n",
            TrainConfig,
            r"num_steps = 10+: must be at most 2,147,483,647 \(.*:1\)",
        ),
        (f"TrainConfig.num_steps = 1\nTrainConfig.seed = {10**20}\n", TrainConfig, r"seed = 10+: must be at most .*:2"),
        (f"OptimizerConfig.learning_rate = {10**400}\n", OptimizerConfig, r"learning_rate = 10+: must be "),
        ("OptimizerConfig.learning_rate = 1e999\n", OptimizerConfig, r"learning_rate = inf: must be a finite number"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_limits(write, text, cls, message):
    gin_files.parse([write(text)], None)
    with pytest.raises(InputError, match=message):
        gin_files.configured(cls)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "config.ModelConfig.embed_dim = 3 # \xe9".encode("latin-1")])
def test_a_file_that_is_not_text_is_named(tmp_path, content):
    (tmp_path / "mine.gin").write_bytes(content)
    with pytest.raises(InputError, match=r"mine\.gin: is not UTF-8 text"):
        gin_files.parse([str(tmp_path / "mine.gin")], None)


def test_files_of_the_package_log_nothing_elsewhere(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    gin_files.parse(["gin/runs/quickstart.gin"], None)
    assert caplog.records == []
