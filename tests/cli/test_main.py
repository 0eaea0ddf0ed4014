"""The command line end to end, and its errors: one message and exit code 2, before anything is written."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.text import Text
from typer.main import get_group

import block_recurrent
from block_recurrent.cli.main import app, main
from block_recurrent.data.preparation import beam

GIN = Path(__file__).parents[2] / "gin"
HEADER = "from __gin__ import dynamic_registration\nfrom block_recurrent import config\n"
MODEL = {
    "vocab_size": 260,
    "embed_dim": 8,
    "num_layers": 2,
    "num_heads": 2,
    "head_dim": 4,
    "mlp_dim": 8,
    "window_length": 8,
    "recurrent_layers": (-1,),
    "num_states": 3,
}


class Command:
    """Runs the command line as a shell would, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._monkeypatch.setattr("sys.argv", ["block_recurrent", *map(str, arguments)])
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = self._capfd.readouterr()
        return int(stopped.value.code or 0), out, err

    def error(self, *arguments: object) -> str:
        """Returns the one line of an expected error."""
        code, _, err = self(*arguments)
        assert code == 2
        assert "Traceback" not in err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]


@pytest.fixture
def command(monkeypatch, capfd):
    return Command(monkeypatch, capfd)


@pytest.fixture
def experiment(tmp_path, store_folder):
    """Returns options for two files: one for the model, one for data and training."""
    model = tmp_path / "model.gin"
    model.write_text(HEADER + "".join(f"config.ModelConfig.{name} = {value}\n" for name, value in MODEL.items()))
    run = tmp_path / "run.gin"
    run.write_text(
        HEADER + f"config.DataConfig.store = '{store_folder}'\n"
        "config.DataConfig.segment_length = 16\n"
        "config.DataConfig.batch_size = 2\n"
        "config.MeshConfig.data = 1\n"
        "config.TrainConfig.num_steps = 4\n"
        "config.TrainConfig.log_every = 1\n"
    )
    return ["--gin_file", model, "--gin_file", run]


def texts_of_help() -> Iterator[tuple[str, str]]:
    """Yields every text that `--help` shows, with its command and option."""
    group = get_group(app)
    yield "epilog", group.epilog or ""
    for name, found in group.commands.items():
        yield name, found.help or ""
        for param in found.params:
            yield f"{name} {param.name}", getattr(param, "help", None) or ""


def test_no_text_of_help_is_lost_as_markup():
    texts = dict(texts_of_help())
    assert any("\\[" in text for text in texts.values())  # an escaped bracket stays
    for name, text in texts.items():
        assert Text.from_markup(text).plain == text.replace("\\[", "["), name


@pytest.mark.parametrize("name", sorted(get_group(app).commands))
def test_every_command_explains_itself(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert "Usage" in out
    assert "[tpu]" in out or name != "compile"  # brackets are markup in help texts
    assert name in command("--help")[1]


def test_the_version_and_the_programs_name_are_shown(command):
    assert command("--version") == (0, f"block-recurrent {block_recurrent.__version__}\n", "")
    assert "python -m block_recurrent" in command("--help")[1]
    assert "python -m block_recurrent train" in command("train", "--help")[1]


@pytest.mark.parametrize("name", sorted(get_group(app).commands))
def test_options_are_shown_with_dashes_and_accepted_with_underscores(command, name):
    options = [option for option in get_group(app).commands[name].params if option.param_type_name == "option"]
    names = {text: option for option in options for text in (*option.opts, *option.secondary_opts)}
    assert [text for text in names if "_" in text] == []
    for separator in "-_":
        spelled = {f"--{text[2:].replace('-', separator)}": option for text, option in names.items()}
        words = [text if getattr(option, "is_flag", False) else f"{text}=1" for text, option in spelled.items()]
        assert command(name, *words, "--help")[0] == 0


def test_both_spellings_are_the_same_option(command, experiment):
    dashes = [str(word).replace("--gin_file", "--gin-file") for word in experiment]
    shown = command("describe", *experiment, "--gin_param", "ModelConfig.num_states=5")
    assert shown[0] == 0
    assert command("describe", *dashes, "--gin-param", "ModelConfig.num_states=5") == shown
    attached = [f"{name}={value}" for name, value in zip(dashes[::2], dashes[1::2], strict=True)]
    assert command("describe", *attached, "--gin_param=ModelConfig.num_states=5") == shown


def test_values_are_left_as_they_are_typed(command, store_folder):
    split = store_folder / "train"
    assert "'--a_b'" in command.error("inspect", split, "--document", "--a_b")
    assert "'a_b'" in command.error("inspect", split, "--document=a_b")
    assert "no_such_store" in command.error("inspect", "no_such_store")


def test_beams_own_options_are_passed_on_unchanged(command, monkeypatch):
    given = []
    monkeypatch.setattr(beam, "run_pipeline", lambda config, arguments: given.extend(arguments) or {})
    own = ("--temp_location=a_b", "--num-workers", "3")
    assert command("prepare", "--gin_file", "gin/data/python_stdlib.gin", "--runner", "DirectRunner", *own)[0] == 0
    assert given == ["--runner=DirectRunner", *own]


def test_the_home_folder_is_expanded_in_paths(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path / "nothing") in command.error("evaluate", "--workdir=~/nothing")


def test_a_removed_field_is_accepted_at_its_default_alone(command, experiment, tmp_path):
    removed = tmp_path / "removed.gin"
    removed.write_text(HEADER + "config.TrainConfig.sample_tokens = 0\n")
    assert command("describe", *experiment, "--gin-file", removed)[0] == 0
    removed.write_text(HEADER + "config.TrainConfig.sample_tokens = 5\n")
    message = command.error("describe", *experiment, "--gin-file", removed)
    assert "TrainConfig.sample_tokens = 5: removed; to sample from a trained run use `generate --workdir" in message
    assert f"{removed}:3" in message


@pytest.mark.slow
def test_train_evaluate_and_generate(command, experiment, tmp_path):
    workdir = tmp_path / "work"
    code, out, _ = command("train", *experiment, "--workdir", workdir)
    assert code == 0
    for expected in (
        "validation at the start:",
        "validation at the end:",
        "checkpoints",
        "evaluate --workdir",
    ):
        assert expected in out
    assert "ModelConfig.embed_dim = 8" in (workdir / "config.gin").read_text()
    record = json.loads((workdir / "run.json").read_text())
    assert record["config"]["model"]["num_states"] == 3
    assert record["data"]["stores"][0]["counts"]["documents"] > 0
    assert record["data"]["stores"][0]["fingerprint"]

    code, out, _ = command("evaluate", "--workdir", workdir, "--split", "test")
    assert code == 0
    assert "bits per byte" in out
    scores = json.loads((workdir / "evaluation" / "store" / "test" / "step_4" / "scores.json").read_text())
    assert scores["subject"]["step"] == 4
    assert scores["data"]["split"] == "test"

    prompt = tmp_path / "prompt.txt"
    prompt.write_text("3 times 4 is")
    arguments = ("generate", "--workdir", workdir, "--prompt-file", prompt, "--num-tokens", 9, "--seed", 5)
    first, again = command(*arguments), command(*arguments)
    assert first[0] == 0
    assert first[1].startswith("3 times 4 is")
    assert first[1] == again[1]
    boxed = command(*arguments, "--box")[1]
    assert "sample" in boxed
    assert "9 sampled tokens, " in boxed
    assert "tokens per second" in boxed
    assert "--box" in command.error(*arguments, "--box", "--num-samples", 2)

    state, lines = tmp_path / "state", tmp_path / "out.jsonl"
    generate = ("generate", "--workdir", workdir, "--greedy", "--num-tokens")
    assert command(*generate, 0, "--prompt", "3 times", "--save-state", state)[0] == 0
    assert command(*generate, 9, "--load-state", state, "--prompt", " 4 is", "--jsonl", lines)[0] == 0
    record = json.loads(lines.read_text())
    whole = command(*generate, 9, "--prompt", "3 times 4 is")[1]
    assert "3 times 4 is" + record["text"] == whole.removesuffix("\n")
    lines.write_text('"3 times"\n{"prompt": "4"}\n')
    _, out, _ = command(*generate, 3, "--prompts", lines, "--num-samples", 2, "--jsonl", "-")
    assert [(r["prompt"], r["sample"]) for r in map(json.loads, out.splitlines())] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert "bits per byte" in command("score", "--workdir", workdir, "--text", "3 times", "--load-state", state)[1]
    code, out, err = command("score", "--workdir", workdir, "--texts", lines)
    assert code == 1  # `prompt` is no `text`
    assert "or an object with a string in 'text'" in err
    assert "7" in out
    lines.write_text('"3 times"\n{"text": "4"}\n')
    _, out, _ = command("score", "--workdir", workdir, "--texts", lines, "--load-state", state, "--jsonl", "-")
    assert [len(json.loads(line)["nats"]) for line in out.splitlines()] == [7, 1]
    full = "--jsonl /dev/full: cannot be written: No space left on device"
    assert full in command.error(*generate, 3, "--prompt", "3", "--jsonl", "/dev/full")
    assert full in command.error("score", "--workdir", workdir, "--text", "33", "--jsonl", "/dev/full")
    lines.write_text('"3 times"\n{"prompt": "4"}\n')
    assert "keeps one text" in command.error(*generate, 3, "--prompts", lines, "--save-state", state)
    assert "needs --save-state" in command.error(*generate, 0, "--prompt", "x")
    lines.write_text("{")
    assert "line 1: not JSON" in command.error(*generate, 3, "--prompts", lines)
    exported = tmp_path / "exported"
    assert command("export", "--workdir", workdir, "--out", exported, "--functions")[0] == 0
    assert (exported / "decode.stablehlo").exists()


@pytest.mark.slow
def test_the_order_of_files_does_not_matter_and_parameters_override(command, experiment, tmp_path):
    workdir = tmp_path / "work"
    assert command("train", *experiment, "--workdir", workdir, "--gin_param", "TrainConfig.num_steps=1")[0] == 0
    other_order = [experiment[i] for i in (2, 3, 0, 1)]
    assert command("train", *other_order, "--workdir", workdir, "--gin_param", "OptimizerConfig.decay_steps=1")[0] == 0
    assert json.loads((workdir / "run.json").read_text())["config"]["train"]["num_steps"] == 4


@pytest.mark.slow
def test_files_that_contradict_each_other_are_refused_in_either_order(command, experiment, tmp_path):
    other = tmp_path / "other.gin"
    other.write_text(HEADER + "config.ModelConfig.embed_dim = 16\n")
    for files in ([*experiment, "--gin_file", other], ["--gin_file", other, *experiment]):
        message = command.error("train", *files, "--workdir", tmp_path / "work")
        assert f"{other}:3" in message
        assert "model.gin:4" in message
        assert "ModelConfig.embed_dim" in message
    other.write_text(HEADER + f"include '{tmp_path / 'model.gin'}'\nconfig.ModelConfig.embed_dim = 16\n")
    rest = experiment[2:]
    assert command("train", "--gin_file", other, *rest, "--workdir", tmp_path / "work")[0] == 0  # overrides its include


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gin_param", "ModelConfig.embed_dimm=4"], "ModelConfig.embed_dimm: no such field; did you mean embed_dim?"),
        (["--gin_param", "ModelConfigg.embed_dim=4"], "ModelConfigg"),
        (["--gin_param", "ModelConfig.embed_dim"], "ModelConfig.embed_dim: must be NAME = VALUE"),
        (["--gin_param", "DataConfig.segment_length=20"], "DataConfig.segment_length = 20: must be a multiple of"),
        (["--gin_param", "DataConfig.segment_length=8"], "no gradient"),
        (
            ["--gin_param", "ModelConfig.recurrent_layers=(2,)"],
            "ModelConfig.recurrent_layers = (2,): must be layer indices",
        ),
        (["--gin_param", "ModelConfig.num_states='many'"], "ModelConfig.num_states = 'many'"),
        (["--gin_param", "DataConfig.store='nowhere'"], "DataConfig.store = 'nowhere': not there; `python -m"),
        (["--gin_param", "DataConfig.eval_split='dev'"], "dev"),
        (
            ["--gin_file", "nosuch.gin"],
            "--gin-file nosuch.gin: no such file; ready to use: gin/runs/evaluate_arxiv.gin",
        ),
    ],
)
def test_mistakes_are_one_clear_error_before_anything_is_written(command, experiment, tmp_path, arguments, message):
    assert message in command.error("train", *experiment, *arguments, "--workdir", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_required_fields_that_no_file_binds_are_named(command, experiment, tmp_path):
    message = command.error("train", *experiment[:2], "--workdir", tmp_path / "work")
    assert "DataConfig: store, segment_length, batch_size not given" in message


def test_another_configuration_in_the_workdir_is_refused(command, experiment, tmp_path):
    assert command("train", *experiment, "--workdir", tmp_path / "work")[0] == 0
    before = (tmp_path / "work" / "run.json").read_bytes()
    other = ["--gin_param", "ModelConfig.num_states=4"]
    message = command.error("train", *experiment, *other, "--workdir", tmp_path / "work")
    assert "config.model.num_states: 3 there, 4 asked for" in message
    assert (tmp_path / "work" / "run.json").read_bytes() == before


def test_a_corrupted_store_is_named(command, experiment, store_folder, tmp_path):
    copied = tmp_path / "store"
    shutil.copytree(store_folder, copied)
    for damage in ("flip", "truncate", "json"):
        shutil.rmtree(copied)
        shutil.copytree(store_folder, copied)
        chunk = max((copied / "train" / "tokens").rglob("*"), key=lambda path: path.stat().st_size)
        content = bytearray(chunk.read_bytes())
        if damage == "flip":
            content[len(content) // 2] ^= 1
            chunk.write_bytes(content)
        elif damage == "truncate":
            chunk.write_bytes(content[:-1])
        else:
            (copied / "train" / "store.json").write_text("{")
        arguments = ["--gin_param", f"DataConfig.store='{copied}'", "--workdir", tmp_path / "work"]
        assert str(copied / "train") in command.error("train", *experiment, *arguments)
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_a_folder_without_a_run_is_refused_and_undecodable_bytes_are_replaced(command, experiment, tmp_path):
    assert "no run is there" in command.error("evaluate", "--workdir", tmp_path)
    assert command("train", *experiment, "--workdir", tmp_path / "work")[0] == 0
    prompt = tmp_path / "prompt"
    prompt.write_bytes(b"\xff\xfe\x00")
    read = command("generate", "--workdir", tmp_path / "work", "--prompt-file", prompt, "--num-tokens", 1)
    assert read[0] == 0
    assert read[1].startswith("\ufffd\ufffd\0")
    assert "warning: texts with undecodable bytes (replaced by U+FFFD): 1 of 1" in read[2]
    assert "Is a directory" in command.error("generate", "--workdir", tmp_path / "work", "--prompt-file", tmp_path)
    prompt.write_bytes(b"")
    assert "prompt: empty" in command.error("generate", "--workdir", tmp_path / "work", "--prompt-file", prompt)


def test_prepare_inspect_verify_and_train_vocab(command, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(30):
        (folder / f"{n}.txt").write_text(f"Text number {n}. " * (50 + n))
    target = tmp_path / "store"
    bindings = {"source": "text_folder", "input": str(folder), "store": str(target), "validation_percent": 20}
    params = [x for name, value in bindings.items() for x in ("--gin_param", f"PrepareConfig.{name}={value!r}")]
    code, out, _ = command("prepare", *params)
    assert code == 0
    assert "written" in out
    assert "unchanged" in command("prepare", *params)[1]
    assert "text_folder" in command("prepare", "--list")[1]
    assert "unknown argument '--nonsense'" in command.error("prepare", *params, "--nonsense")
    assert "median document" in command("inspect", target)[1]
    lines = [line.split("\t") for line in command("inspect", target / "train", "--list")[1].splitlines()]
    assert [int(line[0]) for line in lines] == list(range(len(lines)))
    number, _, size, name = lines[-1]
    named, numbered = (command("inspect", target / "train", "--document", key)[1] for key in (name, number))
    assert len(named.encode()) == int(size)
    assert named == numbered
    assert "several splits" in command.error("inspect", target, "--list")
    first = command("inspect", target / "train", "--document", 0)[1]
    assert first.startswith("Text number ")
    assert command("verify", target)[0] == 0
    other = [*params, "--gin_param", "PrepareConfig.validation_percent=30"]
    assert str(target) in command.error("prepare", *other)
    code, out, _ = command("train-vocab", tmp_path / "own.model", "--size", 300, *params)
    assert code == 0
    assert "300 ids" in out


@pytest.mark.parametrize("path", sorted(GIN.rglob("*.gin")), ids=lambda path: path.relative_to(GIN).as_posix())
def test_experiment_files_parse_alone(command, path, monkeypatch, tmp_path):
    """Each ends at a field that another part would bind, or at the store that does not exist."""
    monkeypatch.chdir(tmp_path)
    one = ("--gin_param", "MeshConfig.data=1")  # one of the eight virtual devices
    message = command.error("train", "--gin_file", path.relative_to(GIN.parent), *one, "--workdir", tmp_path / "work")
    assert "not given; bind in a --gin-file" in message or "not there" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "v9:2x2"], "--topology v9:2x2: must be CHIP:AxB"),
        ([], "--topology: 0 given; name one slice"),
        (["--topology", "v4:2x2x1", "--step", "trian"], "--step trian: must be one of train, evaluate, decode"),
        (["--topology", "v4:2x2x1", "--step", "train", "--step", "decode", "--json", "f"], "--json: holds one result"),
        (["--topology", "v4:2x2x1", "--check"], "--check: goes with --all"),
        (["--topology", "v4:2x2x1", "--limit", "2"], "--limit: goes with --all"),
        (["--all", "--gin_file", "gin/runs/quickstart.gin"], "--gin-file: does not go with --all"),
    ],
)
def test_compile_refuses_options_that_do_not_fit_together(command, arguments, message):
    assert message in command.error("compile", *arguments)
