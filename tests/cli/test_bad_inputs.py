"""Bad inputs through the real commands: exit code 2, one line that names the mistake, and nothing is written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from block_recurrent.__main__ import run
from block_recurrent.training.loop import train
from tests.support.workdirs import QUIET, run_config

HEADER = "from __gin__ import dynamic_registration\nfrom block_recurrent import config\n"
FILES = {
    "macro.gin": HEADER + "config.ModelConfig.embed_dim = %WIDTH\n",
    "one.gin": "include 'two.gin'\n",
    "two.gin": "include 'one.gin'\n",
    "itself.gin": "include 'itself.gin'\n",
    "unquoted.gin": HEADER + "config.ModelConfig.cell = dual\n",
    "path.gin": HEADER + "config.DataConfig.store = /data/store\n",
    "bracket.gin": HEADER + "config.ModelConfig.recurrent_layers = (1,\n",
    "quote.gin": HEADER + "config.DataConfig.store = 'store\n",
    "import.gin": HEADER + "import nowhere.at_all\n",
    "class.gin": HEADER + "config.Modell.cell = 'dual'\n",
    "field.gin": HEADER + "config.ModelConfig.embed_dimm = 4\n",
    "rates.gin": HEADER + "config.OptimizerConfig.max_rate = 0.1\nconfig.OptimizerConfig.min_rate = 0.5\n",
    "latin.gin": "config.DataConfig.store = 'caf\xe9'\n".encode("latin-1"),
    "binary.gin": bytes(range(256)),
    "prose.gin": "Dear gin, please train a model.\n",
    "empty.txt": "",
    "text.txt": "some text\n",
    "garbage": os.urandom(64),
    "card.toml": "licence = 'MIT'\n",
    "limits.toml": "limits = 'none'\n",
}
DESCRIBE = ("describe", "--devices", "1", "--gin-file", "gin/runs/quickstart.gin")
GENERATE = ("generate", "--workdir", "{run}", "--num-tokens", "3")


def with_file(name: str) -> tuple[str, ...]:
    return ("describe", "--devices", "1", "--gin-file", name)


def with_param(param: str) -> tuple[str, ...]:
    return (*DESCRIBE, "--gin-param", param)


def params_of(*params: str) -> tuple[str, ...]:
    return tuple(word for param in params for word in ("--gin-param", param))


def training(*params: str) -> tuple[str, ...]:
    return ("train", "--gin-file", "gin/runs/quickstart.gin", "--workdir", "new", *params_of(*params))


def preparing(**fields: object) -> tuple[str, ...]:
    return ("prepare", *params_of(*(f"PrepareConfig.{name}={value!r}" for name, value in fields.items())))


# Arguments, and words that the line must contain.
ROWS = [
    (with_file("macro.gin"), ("macro.gin:3", "WIDTH is not defined")),
    (with_file("one.gin"), ("two.gin:1", "include each other")),
    (with_file("itself.gin"), ("itself.gin:1", "include each other")),
    (with_file("unquoted.gin"), ("unquoted.gin:3", "cell = 'dual'")),
    (with_file("path.gin"), ("path.gin:3", "store = '/data/store'")),
    (with_file("bracket.gin"), ("bracket.gin:3", "recurrent_layers", "bracket")),
    (with_file("quote.gin"), ("quote.gin:3", "closing quote")),
    (with_file("import.gin"), ("import.gin:3", "nowhere", "install")),
    (with_file("class.gin"), ("class.gin:3", "no such class Modell")),
    (with_file("field.gin"), ("field.gin:3", "did you mean embed_dim?")),
    (with_file("latin.gin"), ("latin.gin", "UTF-8")),
    (with_file("binary.gin"), ("binary.gin", "UTF-8")),
    (with_file("prose.gin"), ("prose.gin:1",)),
    (with_file("nowhere.gin"), ("nowhere.gin", "no such file")),
    (with_file("."), ("no such file",)),
    (with_file("gin/models/laptop.gin"), ("ModelConfig: vocab_size", "not given")),
    (with_param("ModelConfig.embed_dim=%WIDTH"), ("--gin-param", "WIDTH is not defined")),
    (with_param("ModelConfig.cell=dual"), ("--gin-param", "cell = 'dual'")),
    (with_param("DataConfig.store=a/b"), ("--gin-param", "store = 'a/b'")),
    (with_param("ModelConfig.cell="), ("--gin-param", "value is missing")),
    (with_param("ModelConfig.cell"), ("--gin-param", "NAME = VALUE")),
    (with_param(""), ("--gin-param", "binds nothing")),
    (with_param("embed_dim=4"), ("--gin-param", "embed_dim is no field")),
    (with_param("Model.embed_dim=4"), ("--gin-param", "did you mean ModelConfig?")),
    (with_param("a/ModelConfig.embed_dim=4"), ("--gin-param", "scopes have no effect")),
    (with_param("ModelConfig.cell=@nothing()"), ("--gin-param", "nothing")),
    (with_param("ModelConfig.feedback=yes"), ("--gin-param", "feedback")),
    (with_param("ModelConfig.num_layers=2.5"), ("--gin-param", "num_layers = 2.5")),
    (with_param("ModelConfig.num_layers=-1"), ("num_layers = -1", "at least 1")),
    (with_param(f"ModelConfig.embed_dim={10**20}"), ("embed_dim", "at most 2,147,483,647")),
    (with_param(f"TrainConfig.seed={10**20}"), ("TrainConfig.seed", "at most")),
    (with_param("TrainConfig.seed=-1"), ("TrainConfig.seed = -1",)),
    (with_param("OptimizerConfig.max_rate=1e999"), ("max_rate = inf", "finite")),
    (with_param("OptimizerConfig.max_rate=nan"), ("max_rate = nan", "number")),
    (with_param("OptimizerConfig.max_rate=0.0001"), ("max_rate = 0.0001", "min_rate = ")),
    (with_param("OptimizerConfig.schedule='cosin'"), ("schedule = 'cosin'", "'cosine'")),
    (with_param("ModelConfig.dropout_rate=1"), ("dropout_rate = 1",)),
    (with_param("ModelConfig.recurrent_layers=(7,)"), ("recurrent_layers = (7,)",)),
    (with_param("DataConfig.mixture={}"), ("mixture = {}",)),
    (with_param("DataConfig.segment_length=33"), ("segment_length = 33", "multiple")),
    (with_param("MeshConfig.data=0"), ("MeshConfig.data = 0",)),
    (training("DataConfig.store='nowhere'"), ("DataConfig.store = 'nowhere'", "not there")),
    (training("DataConfig.store='text.txt'", "MeshConfig.data=1"), ("text.txt",)),
    (training("DataConfig.store='{store}'", "MeshConfig.data=1", "DataConfig.train_split='trian'"), ("trian",)),
    (training("DataConfig.store='{store}'", "MeshConfig.data=1", "ModelConfig.vocab_size=3"), ("vocab_size = 3",)),
    (training("DataConfig.store='{store}'", "MeshConfig.data=4096"), ("4096",)),
    ((*training(), "--profile", "9:3"), ("--profile 9:3", "FIRST:LAST")),
    ((*training(), "--num-processes", "2"), ("--coordinator",)),
    ((*training("DataConfig.store='{store}'", "MeshConfig.data=1"), "--init-from", "nowhere"), ("nowhere",)),
    (("evaluate",), ("either --workdir or --checkpoint",)),
    (("evaluate", "--workdir", "nowhere"), ("nowhere", "no run is there")),
    (("evaluate", "--workdir", "{run}", "--checkpoint", "{run}"), ("either --workdir or --checkpoint",)),
    (("evaluate", "--workdir", "{run}/checkpoints/77"), ("77",)),
    (("evaluate", "--workdir", "{run}", "--split", "dev"), ("dev",)),
    (("evaluate", "--workdir", "{run}", "--all-checkpoints", "--out", "x"), ("--all-checkpoints",)),
    (("evaluate", "--workdir", "{run}", "--gin-param", "DataConfig.segment_length=9"), ("segment_length = 9",)),
    (("evaluate", "--checkpoint", "garbage"), ("garbage",)),
    (("compare", "{run}", "--out", "x"), ("at least one other model",)),
    (("compare", "{run}", "nowhere", "--out", "x"), ("nowhere",)),
    (("generate", "--workdir", "nowhere", "--prompt", "a"), ("nowhere", "no run is there")),
    ((*GENERATE, "--prompt", ""), ("empty",)),
    ((*GENERATE, "--prompt-file", "missing.txt"), ("missing.txt",)),
    ((*GENERATE, "--prompt", "a", "--temperature", "-1"), ("temperature",)),
    ((*GENERATE, "--prompt", "a", "--top-p", "2"), ("top_p",)),
    ((*GENERATE, "--prompt", "a", "--stop", ""), ("stop",)),
    ((*GENERATE, "--prompt", "a", "--seed", str(10**20)), ("--seed",)),
    ((*GENERATE, "--prompt", "a", "--load-state", "garbage"), ("garbage",)),
    ((*GENERATE, "--prompt", "a", "--load-state", "missing"), ("missing",)),
    ((*GENERATE, "--prompt", "a", "--save-state", "no/such/folder/state"), ("no/such/folder",)),
    ((*GENERATE, "--prompt", "a", "--jsonl", "no/such/folder/out"), ("no/such/folder", "--jsonl")),
    ((*GENERATE, "--prompt", "a", "--box", "--num-samples", "2"), ("--box",)),
    ((*GENERATE[:-1], "0", "--prompt", "a"), ("--num-tokens 0", "--save-state")),
    (("score", "--workdir", "{run}", "--text", "a"), ("nothing to score",)),
    (("export", "--workdir", "nowhere", "--out", "x"), ("nowhere",)),
    (("export", "--workdir", "{run}", "--out", "x", "--card", "missing.toml"), ("--card", "missing.toml")),
    (("export", "--workdir", "{run}", "--out", "x", "--card", "text.txt"), ("--card", "text.txt", "TOML")),
    (("export", "--workdir", "{run}", "--out", "x", "--card", "card.toml"), ("--card", "'licence'", "text_licences")),
    (("export", "--workdir", "{run}", "--out", "x", "--card", "limits.toml"), ("--card", "array", "limits")),
    (("generate", "--prompt", "a"), ("generate: give either --workdir or --model",)),
    ((*GENERATE, "--model", "x", "--prompt", "a"), ("generate: give either --workdir or --model", "not both")),
    (("generate", "--model", "nowhere", "--prompt", "a"), ("--model nowhere", "packaged model")),
    (("generate", "--model", "", "--prompt", "a"), ("--model", "packaged model")),
    (("generate", "--model", "{run}", "--prompt", "a"), ("config.json is missing", "--workdir")),
    (("generate", "--model", "text.txt", "--prompt", "a"), ("--model text.txt", "config.json is missing")),
    (("score", "--text", "a"), ("score: give either --workdir or --model",)),
    (("score", "--workdir", "{run}", "--model", "x", "--text", "a"), ("score: give either", "not both")),
    (("score", "--model", "nowhere", "--text", "ab"), ("--model nowhere", "packaged model")),
    (("evaluate", "--workdir", "{run}", "--model", "x"), ("either --workdir or --checkpoint or --model",)),
    (("evaluate", "--checkpoint", "{run}", "--model", "x"), ("either --workdir or --checkpoint or --model",)),
    (("evaluate", "--model", "nowhere"), ("--model nowhere", "packaged model")),
    (("evaluate", "--model", "x", "--all-checkpoints"), ("--all-checkpoints", "--model")),
    (("report",), ("at least one RUN or --model",)),
    (("report", "--model", "nowhere"), ("--model nowhere", "packaged model")),
    (("export", "--workdir", "{run}", "--out", "text.txt"), ("text.txt",)),
    (("report", "nowhere"), ("nowhere",)),
    (("table", "table9"), ("table9", "table1")),
    (("table", "table1", "--runs", "nowhere"), ("--runs ", "nowhere: no such folder")),
    (("table", "table1", "--format", "xml"), ("--format xml", "markdown")),
    (("inspect", "nowhere"), ("nowhere",)),
    (("inspect", "{store}", "--document", "0"), ("several splits",)),
    (("inspect", "{store}/train", "--document", "none"), ("none",)),
    (("verify", "text.txt"), ("text.txt",)),
    (preparing(source="nothing", store="new"), ("nothing",)),
    (preparing(source="text_folder", input="nowhere", store="new"), ("nowhere",)),
    (preparing(source="python_stdlib", store="new", validation_percent=100), ("validation_percent = 100",)),
    (preparing(source="python_stdlib", store="new", workers=0), ("workers = 0",)),
    (preparing(source="python_stdlib", store="new", splits=("dev",)), ("dev",)),
    ((*preparing(source="python_stdlib", store="new"), "--nonsense"), ("--nonsense",)),
    (("compile", "--topology", "v9:2x2"), ("--topology v9:2x2",)),
    (("compile", "--topology", "v4:2x2x1", "--step", "trian"), ("--step trian",)),
]
PROCESSES = [
    (with_file("one.gin"), ("two.gin:1", "include each other")),
    (with_file("unquoted.gin"), ("unquoted.gin:3", "cell = 'dual'")),
    (with_file("binary.gin"), ("binary.gin", "UTF-8")),
    (with_param("OptimizerConfig.max_rate=0.0001"), ("max_rate = 0.0001", "min_rate = ")),
    (with_param("DataConfig.store=a/b"), ("--gin-param", "store = 'a/b'")),
    (training("DataConfig.store=nowhere"), ("store = 'nowhere'",)),
    (("evaluate",), ("either --workdir or --checkpoint",)),
    (("inspect", "nowhere"), ("nowhere",)),
    (("table", "table9"), ("table9",)),
    (preparing(source="nothing", store="new"), ("nothing",)),
]


@pytest.fixture(scope="module")
def places(store_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(run_config(store_folder, num_steps=1), epath.Path(folder), QUIET)
    return {"run": str(folder), "store": str(store_folder)}


@pytest.fixture(scope="module")
def working_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    for name, content in FILES.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture
def process_state(monkeypatch):
    """Restores what `run` changes for the whole process: streams, handlers of signals and the environment."""
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")  # set: no restart
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    streams = sys.stdout, sys.stderr
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout, sys.stderr = streams
    for number, handler in handlers.items():
        signal.signal(number, handler)


def filled(arguments: tuple[str, ...], places: dict[str, str]) -> list[str]:
    for name, path in places.items():
        arguments = tuple(word.replace(f"{{{name}}}", path) for word in arguments)
    return list(arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def check_line(error: str, words: tuple[str, ...]) -> None:
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


@pytest.mark.parametrize(("arguments", "words"), ROWS, ids=lambda value: " ".join(value)[-80:] or "-")
def test_a_bad_input_is_one_line(arguments, words, places, working_folder, process_state, monkeypatch, capfd):
    monkeypatch.chdir(working_folder)
    monkeypatch.setattr("sys.argv", ["block_recurrent", *filled(arguments, places)])
    before = contents(working_folder)
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        run()
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = capfd.readouterr()
    assert ended.value.code == 2, out + err
    check_line(err, words)
    assert contents(working_folder) == before


@pytest.mark.slow
def test_bad_inputs_of_processes(working_folder):
    """The same in processes of their own, all at the same time."""
    before = contents(working_folder)
    repository = str(Path(__file__).parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "block_recurrent", *arguments],
            env={**os.environ, "PYTHONPATH": repository, "JAX_PLATFORMS": "cpu"},
            cwd=working_folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments, _ in PROCESSES
    ]
    for process, (_, words) in zip(processes, PROCESSES, strict=True):
        _, error = process.communicate(timeout=120)
        assert process.returncode == 2, error
        check_line(error, words)
    assert contents(working_folder) == before


def test_the_table_is_long():
    assert len(ROWS) >= 60
    assert len(PROCESSES) == 10
