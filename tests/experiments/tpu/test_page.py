"""Every command that docs/tpu.md prints: dry runs of the launcher, experiment files, installation."""

import itertools
import re
import shlex
from pathlib import Path

import pytest

from block_recurrent.cli import gin_files
from block_recurrent.config import PrepareConfig
from tests.experiments.tpu.test_scripts import dry_run

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "tpu.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
LINES = [
    line
    for language, block in BLOCKS
    if language == "sh"
    for line in block.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
SETTINGS = dict(
    word.split("=", 1)
    for line in LINES
    if line.startswith("export ")
    for word in shlex.split(line.removeprefix("export "))
) | {"PROJECT": ""}
LAUNCHED = [line for line in LINES if line.startswith("experiments/tpu/tpu.sh ")]


def options(line: str, name: str) -> list[str]:
    words = shlex.split(line)
    return [value for option, value in itertools.pairwise(words) if option == name]


def test_the_page_has_the_whole_way():
    commands = [line.split()[1] for line in LAUNCHED]
    assert commands == ["create", "install", "train", "logs", "evaluate", "fetch", "delete"]


@pytest.mark.parametrize("line", LAUNCHED, ids=lambda line: line.split()[1])
def test_a_printed_command_is_accepted_by_the_launcher(line):
    done = dry_run(*shlex.split(line)[1:], **SETTINGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("+ ")


def test_the_printed_dry_run_is_what_the_launcher_prints():
    (printed,) = [block for language, block in BLOCKS if not language and block.startswith("+ ")]
    assert dry_run("create", **SETTINGS).stdout == printed


@pytest.mark.parametrize("line", [line for line in LINES if options(line, "--gin-file")])
def test_printed_experiment_files_exist_and_their_data_is_on_the_bucket(line):
    gin_files.parse([str(ROOT / file) for file in options(line, "--gin-file")], options(line, "--gin-param"))
    if " compile " in line:
        gin_files.configured_run()
    elif " prepare " in line:
        assert gin_files.configured(PrepareConfig).store == "gs://my-bucket/prepared/pg19_tokens"
    else:
        assert gin_files.configured_run().data.store == "gs://my-bucket/prepared/pg19_tokens"


def test_every_installation_can_read_the_bucket():
    installed = [line for line in LINES if line.startswith("pip install") and "-e" in line]
    assert len(installed) == 2
    for line in installed:
        assert re.search(r"\.\[([a-z]+,)*gcs\]", line), line
        assert "-c requirements.lock" in line
    script = (ROOT / "experiments" / "tpu" / "tpu.sh").read_text()
    assert "[tpu,gcs]" in script
