"""The import graph is the design: it flows one way, and heavy or peculiar libraries have one home each."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "block_recurrent"

# What each part may import of the package, besides itself. `errors` is for everyone.
LAYERS = {
    "errors": set(),
    "typing": set(),
    "named_leaves": set(),
    "paper_tables": set(),
    "validation": {"errors"},
    "config": {"errors", "validation"},
    "gin_files": {"config", "errors"},
    "data": {"config", "errors"},
    "ops": {"typing"},
    "state": {"config", "typing"},
    "layers": {"ops", "state", "config", "typing"},
    "model": {"layers", "ops", "state", "config", "typing", "errors"},
    "chips": set(),
    "partitioning": {"config", "errors", "named_leaves"},
    "loss": {"typing"},
    "optimizer": {"config"},
    "flops": {"config"},
    "train_step": {"layers", "model", "state", "loss", "optimizer", "config", "typing"},
    "interop": {"named_leaves", "model", "state", "loss", "config", "typing", "errors"},
    "distributed": {"errors"},
    "environment": {"distributed", "errors"},
    "checksum": {"named_leaves"},
    "checkpoint": {"checksum", "distributed", "train_step", "errors"},
    "metrics": set(),
    "progress": set(),
    "preemption": set(),
    "watchdog": set(),
    "workdir_lock": {"errors"},
    "run_record": {"config", "errors"},
    "evaluate": {"chips", "data", "model", "partitioning", "train_step", "config", "typing"},
    "decode": {"layers", "model", "ops", "state", "config", "errors", "typing"},
    "sampling": {"errors", "typing"},
    "decode_loop": {"decode", "model", "sampling", "config", "typing"},
    "state_file": {"named_leaves", "checksum", "decode", "config", "errors", "typing"},
    "stop_strings": {"errors"},
    "continuation": {"data", "stop_strings"},
    "scoring": {"decode", "loss", "model", "state", "config", "typing"},
    "saved_run": {"checkpoint", "config", "data", "run_record", "train_step", "typing"},
    "generator": {
        "continuation", "data", "decode", "decode_loop", "sampling", "saved_run", "scoring", "state_file", "config",
        "errors", "typing",
    },
    "console": {"data", "scoring", "train"},
    "describe": {"config", "flops", "model", "partitioning", "train_step"},
    "export": {"named_leaves", "config", "errors", "model", "saved_run", "typing"},
    "serving": {"decode", "model", "named_leaves", "saved_run", "state", "config", "errors", "typing"},
    "initial_params": {"named_leaves", "config", "errors", "export", "interop", "saved_run", "typing"},
    "analysis": {
        "checkpoint", "config", "console", "data", "errors", "export", "layers", "loss", "model", "ops", "partitioning",
        "run_record", "saved_run", "state", "train_step", "typing",
    },
    "report": {"analysis", "errors", "metrics", "paper_tables", "run_record"},
    "reproduction": {"config", "paper_tables", "report", "run_record"},
    "table_formats": {"paper_tables", "reproduction"},
    "tpu": {
        "chips", "config", "decode_loop", "describe", "errors", "evaluate", "flops", "model", "partitioning",
        "sampling", "serving", "train", "train_step",
    },
    "train_log": {"chips", "config", "errors", "flops", "metrics", "optimizer", "train_step"},
    "train": {
        "checkpoint", "chips", "config", "data", "distributed", "errors", "evaluate", "initial_params", "metrics",
        "model", "optimizer", "partitioning", "preemption", "progress", "run_record", "train_log", "train_step",
        "typing", "watchdog", "workdir_lock",
    },
}  # fmt: skip
_TENSORFLOW = ("seqio", "tensorflow", "tensorflow_datasets", "tensorflow_text")
HOMES = {
    "gin": "gin_files.py",
    "pyarrow": "analysis/tables.py",
    "msgspec": "analysis/records.py",
    "vl_convert": "report/pictures.py",
    "jinja2": "report/page.py",
} | dict.fromkeys(_TENSORFLOW, "data/tasks.py")
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def part(module: str) -> str:
    return module.removeprefix("block_recurrent.").split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_flow_one_way(path):
    own = path.parts[0].removesuffix(".py")
    ours = {part(module) for module in imported_modules(path) if module.split(".")[0] == "block_recurrent"} - {own}
    if own in ("main", "commands", "__main__", "__init__"):
        return
    assert own in LAYERS, f"{path}: give it a place in the import graph"
    assert ours <= LAYERS[own], f"{path} may not import {sorted(ours - LAYERS[own])}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_peculiar_libraries_have_one_home(path):
    for module in imported_modules(path):
        home = HOMES.get(module.split(".")[0])
        assert home is None or path.as_posix() == home, f"{path} imports {module}; only {home} may"


def test_data_needs_no_jax():
    for path in FILES:
        if path.parts[0] == "data":
            assert not {m for m in imported_modules(path) if m.split(".")[0] in ("jax", "flax", "optax", "orbax")}, path


def test_the_graph_has_no_cycle():
    seen: set[str] = set()
    remaining = {name: set(allowed) for name, allowed in LAYERS.items()}
    while remaining:
        free = {name for name, allowed in remaining.items() if allowed <= seen}
        assert free, f"cycle among {sorted(remaining)}"
        seen |= free
        remaining = {name: allowed for name, allowed in remaining.items() if name not in free}
