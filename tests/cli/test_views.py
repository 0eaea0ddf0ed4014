import io
import shlex
import sys

import pytest
from rich.console import Console

from block_recurrent.cli import views


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """Prints the next steps with a given interpreter, in a folder; returns the commands as lists of words."""

    def show(executable: str, workdir: str) -> dict[str, list[str]]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "executable", executable.format(folder=tmp_path))
        output = io.StringIO()
        views.show_next_steps(Console(file=output, width=40), workdir, "validation")
        rows = (line.strip().split(maxsplit=1) for line in output.getvalue().splitlines())
        return {name: shlex.split(value) for name, value in rows}

    return show


@pytest.mark.parametrize(
    ("executable", "printed"),
    [("{folder}/.venv/bin/python", ".venv/bin/python"), ("/opt/python/bin/python3", "/opt/python/bin/python3")],
)
def test_commands_name_the_interpreter_and_need_no_activated_environment(shown, executable, printed):
    commands = shown(executable, "runs/mine")
    for name in ("evaluate", "sample"):
        assert commands[name][:3] == [printed, "-m", "block_recurrent"]
    assert commands["curves"][0] == commands["curves"][6] == printed
    assert commands["evaluate"][3:] == ["evaluate", "--workdir", "runs/mine", "--split", "validation"]
    assert commands["sample"][3:] == ["generate", "--workdir", "runs/mine", "--prompt", "The "]


def test_paths_with_spaces_can_be_pasted(shown):
    commands = shown("/my python/bin/python", "my runs/one")
    assert commands["evaluate"][0] == "/my python/bin/python"
    assert commands["evaluate"][5] == "my runs/one"
    assert commands["curves"][-1] == "my runs/one/tensorboard"
