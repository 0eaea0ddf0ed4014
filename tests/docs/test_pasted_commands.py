"""Every command of the documentation, pasted from top to bottom on a bare machine: `make docs-test`."""

import shlex

import pytest

from tests.docs.bare_machine import BareMachine
from tests.docs.documented import ACTIVATE, FILES, PAGES, Command, commands_of, normal
from tests.docs.exemptions import EXEMPTIONS, SETUP

pytestmark = pytest.mark.docs

# Of one command. On an idle machine none takes over two minutes, except the first, which installs.
_SECONDS = 600
_INSTEAD = {exemption.command: exemption.instead for exemption in EXEMPTIONS}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return BareMachine(tmp_path_factory.mktemp("bare"))


def runnable(command: Command) -> str | None:
    """Returns what is run for a shell command or a file; None for nothing."""
    if command.kind in FILES:
        return f"cat >{FILES[command.kind]} <<'END_OF_FILE'\n{command.text}END_OF_FILE"
    if command.kind == "options" and command.normal not in _INSTEAD:
        return f"python -m block_recurrent describe --devices 16 --gin-file gin/runs/quickstart.gin {command.text}"
    return _INSTEAD.get(command.normal, command.text)


def snippets(page: str) -> str:
    """Returns the Python snippets of a page as one program, with the lines that the list replaces."""
    lines = []
    for command in commands_of(page):
        if command.kind == "python":
            for line in command.text.splitlines():
                key = " ".join(line.split())
                lines.append(_INSTEAD.get(key, line) or "")
    return "\n".join(lines)


def pasted(page: str) -> list[tuple[str, str]]:
    """Returns the commands of a page as (place, text); its Python snippets are one program in the place of the last."""
    found = []
    *_, last = [command for command in commands_of(page) if command.kind == "python"] or [None]
    for command in commands_of(page):
        if command == last:
            found.append((f"{page}: Python", f"python -c {shlex.quote(snippets(page))}"))
        # A file is written before the first command, which may be above its block.
        if command.kind in FILES:
            found.insert(0, (command.where, runnable(command) or ""))
        elif command.kind != "python" and (text := runnable(command)) is not None:
            found.append((command.where, text))
            if page in SETUP and normal(text) == ACTIVATE:
                found.append((f"{page}: setup", SETUP[page][0]))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_commands_work_when_they_are_pasted(page, machine):
    commands = pasted(page)
    faults = []
    results = machine.paste(page, [text for _, text in commands], _SECONDS)
    for (where, text), ended in zip(commands, results, strict=True):
        print(f"{ended.seconds:6.1f} s  exit code {ended.code}  {where}  {normal(text)[:150]}", flush=True)
        if ended.code != 0:
            faults.append(f"{where}: exit code {ended.code}\n{text}\n{ended.output[-3000:]}")
    assert not faults, "\n\n".join(faults)
