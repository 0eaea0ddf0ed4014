"""One word for each thing (docs/glossary.md): listed names and phrases stay out of code, gin files and docs."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = sorted(path for folder in ("block_recurrent", "experiments", "tests") for path in (ROOT / folder).rglob("*.py"))
PROSE = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "gin/**/*.gin",
        "gin/*.md",
        "experiments/**/*.md",
        "experiments/*.ipynb",
        "block_recurrent/**/*.html",
    )
    for path in ROOT.glob(pattern)
)
# Name -> the one to write.
NAMES = {
    "admit": "input_gate",
    "joined": "fused_weights",
    "HOW_NOT_WHAT": "fields_that_may_differ",
    "TokenNats": "TokenLosses",
    "row_nats": "row_losses",
    "KeysValues": "KeyValues",
    "Candidate": "ModelUnderTest (evaluation) or GateCandidate",
    "readable": "key_values",
    "predict": "unembed",
    "read_token": "decode_token",
    "Drawn": "SampledTokens",
    "memory_behind": "state_after",
}
# Where such a name means something else.
ALLOWED_NAMES = {
    "Candidate": "block_recurrent/model/layers/cells.py",  # of a gate (paper, section 3.2)
    "readable": (
        "tests/data/batching/",
        "block_recurrent/data/sources/compression.py",
    ),  # long documents; Python's `io`
}
# Phrase -> what to write.
PHRASES = {
    r"\bof which\b": "two sentences",
    r"\bby which\b": "two sentences",
    r"\bbehind\b": "after",
    r"\bbeside\b": "next to",
    r"\banew\b": "again",
    r"(?<!/)\badmits?\b": "input gate",
    r"\bwhat it is\b": "a noun",
    r"\bto be told\b|\bis told\b": "is called with, is printed",
    r"\blies? (in|on|at|below|beside|there|where)\b": "is in",
    r"\bits? own making\b": "a noun",
}
FIRST_WORDS = ("What", "How", "Whether", "Whatever", "Where", "Which", "Who", "Why", "If", "That")


def names_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


def prose_of(source: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Docstrings and comments, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            yield node.body[0].lineno, ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def faults_in(text: str) -> list[str]:
    return [
        f"{match[0]!r} (write: {instead})"
        for phrase, instead in PHRASES.items()
        for match in re.finditer(phrase, text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_uses_the_glossary(path):
    if path == Path(__file__):
        return
    source = path.read_text()
    tree = ast.parse(source)
    where = path.relative_to(ROOT).as_posix()
    faults = [
        f"{where}:{line}: {name} (write: {NAMES[name]})"
        for line, name in names_of(tree)
        if name in NAMES and not where.startswith(ALLOWED_NAMES.get(name, "-"))
    ]
    for line, text in prose_of(source, tree):
        faults += [f"{where}:{line}: {fault}" for fault in faults_in(text)]
        if not text.startswith("#") and text.split()[0].rstrip(",") in FIRST_WORDS:
            faults.append(f"{where}:{line}: a docstring that begins with {text.split()[0]!r}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_prose_uses_the_glossary(path):
    lines = enumerate(path.read_text().splitlines(), 1)
    faults = [f"{path.relative_to(ROOT)}:{line}: {fault}" for line, text in lines for fault in faults_in(text)]
    assert not faults, "\n".join(faults)


def test_the_check_finds_what_it_looks_for():
    source = '"""What a file holds."""\nadmit = 1  # of which one\n'
    tree = ast.parse(source)
    assert (2, "admit") in set(names_of(tree))
    assert [fault for _, text in prose_of(source, tree) for fault in faults_in(text)] == [
        "'of which' (write: two sentences)"
    ]
