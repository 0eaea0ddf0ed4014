"""Imports flow one way between folders, and heavy or peculiar libraries have one home each."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "block_recurrent"
# Which folders each folder may import, besides itself and the ground (`config` and the modules at the top).
MAY_IMPORT = {
    "model": set(),
    "parallel": set(),
    "data": set(),
    "interop": {"model"},
    "training": {"model", "parallel", "data", "interop"},
    "generation": {"model", "parallel", "data", "interop", "training"},
    "evaluation": {"model", "parallel", "data", "interop", "training"},
    "paper": {"training", "evaluation"},
    "aot": {"model", "parallel", "training", "generation"},
    "report": {"training", "evaluation", "paper"},
}
EVERYTHING = {*MAY_IMPORT, "cli"}  # what the command line may import
HOMES = {
    "gin": "cli/gin_files.py",
    "google": "training/bucket_lock.py",
    "pyarrow": "evaluation/parquet.py",
    "vl_convert": "report/pictures.py",
    "jinja2": "report/page.py",
    "seqio": "data/seqio_tasks.py",
    "tensorflow": "data/seqio_tasks.py",
    "tensorflow_datasets": "data/sources/tfds.py",
    "zstandard": "data/sources/compression.py",
}
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Full names of what a file imports, at its top or inside functions."""
    modules = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def imported_folders(path: Path) -> set[str]:
    ours = [module.split(".") for module in imported_modules(path) if module.startswith("block_recurrent.")]
    return {parts[1] for parts in ours if parts[1] in EVERYTHING}


@pytest.mark.parametrize("folder", [*MAY_IMPORT, "cli"])
def test_imports_between_folders_flow_one_way(folder):
    allowed = MAY_IMPORT.get(folder, EVERYTHING) | {folder}
    for path in FILES:
        if path.parts[0] == folder:
            assert imported_folders(path) <= allowed, f"{path} may not import {imported_folders(path) - allowed}"


def test_every_folder_has_its_row_and_imports_earlier_ones_alone():
    assert {path.parts[0] for path in FILES if len(path.parts) > 1} == EVERYTHING | {"config"}
    order = list(MAY_IMPORT)
    for folder, allowed in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(folder) for other in allowed), folder


def test_the_ground_imports_no_folder():
    for path in FILES:
        if path.parts[0] not in (*EVERYTHING, "__init__.py", "__main__.py"):
            assert not imported_folders(path), path


@pytest.mark.parametrize("path", FILES, ids=str)
def test_peculiar_libraries_have_one_home(path):
    for module in imported_modules(path):
        home = HOMES.get(module.split(".")[0])
        assert home is None or path.as_posix() == home, f"{path} imports {module}; only {home} may"


def test_data_needs_no_jax():
    for path in FILES:
        if path.parts[0] == "data":
            assert not {m for m in imported_modules(path) if m.split(".")[0] in ("jax", "flax", "optax", "orbax")}, path


def test_no_circles():
    """No module imports itself through others, not even inside a function."""
    names = {
        ".".join(("block_recurrent", *path.with_suffix("").parts)).removesuffix(".__init__"): path for path in FILES
    }
    imports = {
        name: {n for module in imported_modules(path) for n in (module, module.rpartition(".")[0]) if n in names}
        - {name}
        for name, path in names.items()
        if len(path.parts) > 1  # the top loads its public names when they are used
    }
    while leaves := {name for name, others in imports.items() if not others & imports.keys()}:
        for name in leaves:
            del imports[name]
    assert not imports, f"circle among {sorted(imports)}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_are_short(path):
    source = (PACKAGE / path).read_text()
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            signature = node.body[0].lineno - node.lineno if path.parts[0] == "cli" else 0  # options of a command
            length = (node.end_lineno or node.lineno) - node.lineno - signature
            assert length <= 60, f"{path}:{node.lineno} {node.name}: {length} lines"
