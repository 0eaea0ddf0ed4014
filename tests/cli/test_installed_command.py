"""The installed command `block-recurrent`: its name in help, and completion in a shell."""

import os
import subprocess
import sys

import pytest

ENTRY_POINT = "from block_recurrent.__main__ import run\nrun()\n"  # as pip writes it


@pytest.fixture
def run(tmp_path):
    program = tmp_path / "block-recurrent"
    program.write_text(ENTRY_POINT)

    def run(*arguments: str, **environment: str) -> str:
        command = [sys.executable, str(program), *arguments]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
        return done.stdout

    return run


def test_it_is_named_as_it_was_called_and_offers_completion(run):
    text = run("--help")
    assert "Usage: block-recurrent " in text
    assert "--install-completion" in text


def test_commands_and_options_are_completed(run):
    def completed(words: str) -> list[str]:
        place = str(len(words.split(" ")) - 1)
        return run(_BLOCK_RECURRENT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=place).split()

    assert completed("block-recurrent che") == ["check-parity"]
    assert completed("block-recurrent evaluate --max-") == ["--max-documents", "--max-tokens"]
