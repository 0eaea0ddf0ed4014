"""Documented commands exist: their options, gin files, fields, make targets and modules; and the list of exceptions."""

import functools
import itertools
import re
import shlex
from collections.abc import Iterator

import pytest
from typer.main import get_group

from block_recurrent.cli import gin_files
from block_recurrent.cli.main import app
from tests.docs.documented import ACTIVATE, PAGES, ROOT, Command, commands_of, inline_commands, normal, split_block
from tests.docs.exemptions import EXEMPTIONS, SETUP

# Programs of every shell, and those that an exception replaces.
_SHELL = {"source", "cat", "printf", "export", "mkdir", "cp", "rm", "pip", "read", "do", "done", "while"}
_REPLACED = {"gcloud", "aws", "git"}
_GROUP = get_group(app)
_EXTRAS = set(re.findall(r'^        "(\w+)": [A-Z\[]', (ROOT / "setup.py").read_text(), re.MULTILINE))
_TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
_EXEMPT = {exemption.command for exemption in EXEMPTIONS}


@functools.cache
def documented(page: str) -> tuple[Command, ...]:
    return tuple(commands_of(page))


def faults_of(text: str, *, exempt: bool) -> Iterator[str]:
    """Yields what is wrong with a shell command, without running it."""
    quoted = re.compile(r"'[^']*'|\"[^\"]*\"")
    for part in re.split(r"&&|[|;]", quoted.sub(lambda found: re.sub(r"[|;&]", "_", found[0]), normal(text))):
        words = shlex.split(part)
        while words and re.fullmatch(r"\w+=.*", words[0], re.DOTALL):
            words = words[1:]
        if not words:
            continue
        if words[:3] == ["python", "-m", "block_recurrent"] or words[0] == "block-recurrent":
            yield from faults_of_command(words[1:] if words[0] == "block-recurrent" else words[3:])
        elif words[:2] == ["python", "-m"]:
            yield from faults_of_module(words[2], words[3:])
        elif words[0] == "make":
            yield from (f"no target {word}" for word in words[1:] if "=" not in word and word not in _TARGETS)
        elif words[:2] == ["pip", "install"]:
            named = re.findall(r"\[([\w,]+)\]", part)
            yield from (f"no extra {e}" for names in named for e in names.split(",") if e not in _EXTRAS)
        elif words[0].startswith("experiments/"):
            usage = (ROOT / words[0]).read_text()
            if not re.search(rf"^  {words[1]} ", usage, re.MULTILINE):
                yield f"{words[0]}: no command {words[1]}"
        elif words[0] not in _SHELL and not (exempt and words[0] in {"python", *_REPLACED}):
            yield f"unknown program {words[0]}"


def faults_of_command(words: list[str]) -> Iterator[str]:
    name = words[0] if words else "--help"
    if name.startswith("--"):
        known = {"--help", *(option for param in _GROUP.params for option in param.opts)}
        known |= {"--install-completion", "--show-completion"}  # of the installed command
        yield from (f"no option {name}" for _ in [0] if name not in known)
        return
    if name not in _GROUP.commands:
        yield f"no command {name}"
        return
    command = _GROUP.commands[name]
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
    options = [word.partition("=")[0].replace("_", "-") for word in words if re.match(r"--\w", word)]
    if "--runner" not in options:  # with it, options that `prepare` does not know go to Beam
        yield from (f"{name}: no option {option}" for option in options if option not in known)
    yield from faults_of_gin(words)


def faults_of_gin(words: list[str]) -> Iterator[str]:
    values = {"--gin-file": [], "--gin-param": []}
    for option, value in itertools.pairwise(words):
        values.get(option, []).append(value)
    files = [file for file in values["--gin-file"] if file not in {"mine.gin", "scalar.gin"} and "$" not in file]
    try:
        gin_files.parse(files, [param for param in values["--gin-param"] if "$" not in param])
    except Exception as error:
        yield f"{error}"


def faults_of_module(module: str, words: list[str]) -> Iterator[str]:
    path = ROOT / (module.replace(".", "/") + ".py")
    if not path.is_file():
        yield f"no module {module}"
        return
    source = path.read_text()
    yield from (f"{module}: no option {word}" for word in words if word.startswith("--") and f'"{word}"' not in source)


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    faults = []
    for command in (*documented(page), *inline_commands(page)):
        if command.kind == "shell":
            found = faults_of(command.text, exempt=command.normal in _EXEMPT)
        elif command.kind == "options":
            found = faults_of_command(["describe", *shlex.split(command.text, comments=True)])
        else:
            continue
        faults += [f"{command.where}: {fault}" for fault in found]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_activates_the_environment_before_it_uses_it(page):
    activated = False
    for command in documented(page):
        activated |= command.normal == ACTIVATE
        if re.search(r"\bpython -m|\bpip install|block-recurrent ", command.normal) and command.kind == "shell":
            assert activated, f"{command.where}: the page does not say `{ACTIVATE}` before"


def test_the_list_names_only_documented_commands_and_each_once():
    lines = set()
    for command in itertools.chain(*map(documented, PAGES)):
        if command.kind == "python":
            lines |= {" ".join(line.split()) for line in command.text.splitlines()}
        else:
            lines.add(command.normal)
    assert sorted(_EXEMPT - lines) == []
    assert len(_EXEMPT) == len(EXEMPTIONS)
    assert all(exemption.reason and exemption.instead != exemption.command for exemption in EXEMPTIONS)
    assert SETUP.keys() <= set(PAGES)


def test_what_is_run_instead_exists():
    for exemption in EXEMPTIONS:
        if exemption.instead is not None and not exemption.instead.startswith("from "):
            text = exemption.instead.replace("python tests/docs/small_corpora.py", "cat")
            assert list(faults_of(text, exempt=True)) == [], exemption.instead


def test_the_documentation_has_all_its_commands():
    """An extraction that finds nothing would pass every test above."""
    counts = {page: len(documented(page)) for page in PAGES}
    assert counts["README.md"] >= 15
    assert sum(counts.values()) >= 100
    assert {"python", "gin", "toml", "shell", "options"} == {c.kind for page in PAGES for c in documented(page)}


def test_the_check_finds_what_it_looks_for():
    wrong = {
        "python -m block_recurrent train --no-such-option x": "no option --no-such-option",
        "cat x | python -m block_recurrent trane": "no command trane",
        "python -m block_recurrent train --gin-file gin/none.gin": "gin/none.gin",
        "python -m block_recurrent train --gin-param TrainConfig.none=1": "none",
        "python -m experiments.none": "no module",
        "make none": "no target none",
        "pip install -e '.[none]'": "no extra none",
        "experiments/tpu/tpu.sh none": "no command none",
        "gcloud storage ls": "unknown program gcloud",
    }
    for text, fault in wrong.items():
        (found,) = faults_of(text, exempt=False)
        assert fault in found


def test_blocks_are_divided_into_complete_commands():
    block = "# comment\na \\\n  b  # c\n\nwhile read x; do\n  y\ndone < z\nV='1\n2'\n--x=1  # y\n"
    found = [(number, normal(text)) for number, text in split_block(block)]
    assert found == [(1, "a b"), (4, "while read x; do y done < z"), (7, "V='1 2'"), (9, "--x=1")]
