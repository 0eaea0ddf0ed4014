"""`~` is the home folder in every path of the command line and of the configuration."""

import json
import os
import pwd
import shutil
from pathlib import Path
from typing import Any

import pytest

from block_recurrent import files
from block_recurrent.cli import compile_aot
from block_recurrent.config import DataConfig, PrepareConfig
from block_recurrent.errors import InputError
from experiments.tables import run_table
from tests.support.commands import load_once, run_command

HEADER = "from __gin__ import dynamic_registration\nfrom block_recurrent import config\n"
SHAPE: dict[str, Any] = {"segment_length": 16, "batch_size": 2}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def test_a_path_is_expanded_as_in_a_shell(home):
    user = pwd.getpwuid(os.getuid())
    assert files.expand("~") == str(home)
    assert files.expand("~/a/~") == f"{home}/a/~"
    assert files.expand(f"~{user.pw_name}/a") == os.path.join(user.pw_dir, "a")
    for unchanged in ("~nobody-of-this-name/a", "./~", "./~/a", "a~", "a/~", "gs://~/a", "gs://bucket/~", "", "-"):
        assert files.expand(unchanged) == unchanged
    assert str(files.resolve("./~nobody-of-this-name")) == f"{Path.cwd()}/~nobody-of-this-name"


def test_fields_that_are_paths_are_expanded(home):
    prepared = PrepareConfig(source="jsonl", store="~/s", input="~/i", vocabulary="~/v.model")
    assert (prepared.store, prepared.input, prepared.vocabulary) == (f"{home}/s", f"{home}/i", f"{home}/v.model")
    data = DataConfig(store="~/s", mixture={"~/a": 1, "gs://~/b": 2}, **SHAPE)
    assert data.store == f"{home}/s"
    assert data.mixture == {f"{home}/a": 1, "gs://~/b": 2}
    assert PrepareConfig(source="jsonl", store="gs://~/s").vocabulary == "bytes"
    with pytest.raises(InputError, match=r"DataConfig\.mixture.*named twice"):
        DataConfig(store="s", mixture={"~/a": 1, f"{home}/a": 2}, **SHAPE)


MISSING = [
    ("inspect", "~/nowhere"),
    ("verify", "~/nowhere"),
    ("evaluate", "--workdir=~/nowhere"),
    ("evaluate", "--checkpoint", "~/nowhere"),
    ("compare", "~/nowhere", "~/other", "--out=~/out"),
    ("report", "~/nowhere"),
    ("table", "table1", "--runs=~/nowhere"),
    ("generate", "--workdir", "~/nowhere", "--prompt", "x"),
    ("generate", "--workdir", "w", "--prompt-file=~/nowhere"),
    ("generate", "--workdir", "w", "--prompts=~/nowhere"),
    ("score", "--workdir", "~/nowhere", "--text", "xx"),
    ("score", "--workdir", "w", "--text-file=~/nowhere"),
    ("score", "--workdir", "w", "--texts=~/nowhere"),
    ("export", "--workdir=~/nowhere", "--out", "x"),
    ("check-parity", "~/nowhere"),
    ("prepare", *(f"--gin-param=PrepareConfig.{x}" for x in ("source='jsonl'", "store='~/s'", "input='~/nowhere'"))),
]


@pytest.mark.parametrize("arguments", MISSING, ids=" ".join)
def test_an_error_names_the_path_in_the_home_folder(home, arguments):
    ended = run_command(*arguments)
    assert ended.code == 2
    assert f"{home}/nowhere" in ended.err


def test_experiment_files_and_their_includes_are_found(home, store_folder):
    (home / "store").symlink_to(store_folder)
    (home / "included.gin").write_text(HEADER + "config.DataConfig.store = '~/store'\n")
    (home / "run.gin").write_text(HEADER + "include '~/included.gin'\nconfig.DataConfig.split = 'x'\n")
    assert f"{home}/run.gin:4" in run_command("describe", "--gin-file=~/run.gin").err
    fields = "config.DataConfig.segment_length = 16\nconfig.DataConfig.batch_size = 1\n"
    (home / "run.gin").write_text(HEADER + "include '~/included.gin'\n" + fields)
    ended = run_command("train", "--gin-file=~/run.gin", "--gin-file", "gin/models/laptop.gin", "--workdir=~/run")
    assert "ModelConfig" in ended.err  # after DataConfig was complete


@pytest.mark.slow
def test_outputs_are_written_to_the_home_folder(home, store_folder, byte_run, monkeypatch):
    load_once(monkeypatch)
    (home / "run").symlink_to(byte_run)
    (home / "lines.jsonl").write_text('"3 times"\n')
    generate = ("generate", "--workdir=~/run", "--num-tokens", 1, "--prompts=~/lines.jsonl")
    assert run_command(*generate, "--jsonl=~/out.jsonl", "--save-state=~/state").code == 0
    assert json.loads((home / "out.jsonl").read_text())["prompt_text"] == "3 times"
    assert run_command("score", "--workdir=~/run", "--text", "x", "--load-state=~/state", "--jsonl=~/s.jsonl").code == 0
    assert (home / "s.jsonl").exists()
    assert run_command("export", "--workdir=~/run", "--out=~/exported").code == 0
    assert (home / "exported" / "config.json").exists()
    shutil.copy(store_folder / "train" / "store.json", home / "own.model")
    assert f"{home}/own.model" in run_command("train-vocab", "~/own.model", *python_source()).err
    refused = run_command("score", "--workdir=~/run", "--text", "xx", "--vocabulary=~/own.model")
    assert refused.code
    assert not list(Path.cwd().iterdir())


def test_the_outputs_of_compile_are_expanded(home, monkeypatch):
    seen = []
    monkeypatch.setattr(compile_aot, "_complete_report", lambda topologies, out, limit, **_: seen.append(out))
    monkeypatch.setattr(compile_aot, "_compile", lambda step, run, topology, json: seen.append(json) or True)
    assert run_command("compile", "--all", "--out=~/report.md").code == 0
    files = ("--gin-file", "gin/runs/quickstart.gin")
    assert run_command("compile", *files, "--topology", "v4:2x2x4", "--json=~/result.json").code == 0
    assert seen == [home / "report.md", home / "result.json"]


def python_source() -> tuple[str, ...]:
    return ("--gin-param", "PrepareConfig.source='python_stdlib'", "--gin-param", "PrepareConfig.store='unused'")


def test_a_file_named_like_the_home_folder_is_reached_through_its_folder(home, byte_run, monkeypatch):
    load_once(monkeypatch)
    Path("~").write_text("3 times 4")
    plain = run_command("score", "--workdir", byte_run, "--text", "3 times 4")
    assert run_command("score", "--workdir", byte_run, "--text-file", "./~").out == plain.out
    assert run_command("score", "--workdir", byte_run, "--text-file", "~").code == 2  # the home folder is no file


def test_the_tables_program_expands_its_folders(home, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run_table", "--table", "table1", "--runs=~/runs", "--results=~/results"])
    arguments = run_table.parse()
    assert (arguments.runs, arguments.results) == (f"{home}/runs", home / "results")
