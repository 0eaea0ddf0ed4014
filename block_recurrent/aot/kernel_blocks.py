"""Programs of Pallas kernels for TPU: their text, and the bytes that their grids move between HBM and VMEM.

The grid fetches a block of an operand when its index differs from the one before, and writes a block of a result when
the next index differs.
"""

import base64
import importlib
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from block_recurrent.aot.hlo import Array, Instruction

_TARGET = "tpu_custom_call"
_BODY = re.compile(r"(\\22body\\22: \\22)([\w+/=]+)")  # of a kernel in a lowered program; \22 is a quotation mark
_FUNCTION = re.compile(r'sym_name = "(\w+)"')
_GRID = re.compile(r"iteration_bounds = array<i64: ([\d, ]+)>")
_WINDOW = re.compile(r"\{[^{}]*transform_indices = @(\w+), window_bounds = array<i64: ([\d, ]+)>[^{}]*\}")
_OPERATION = re.compile(r'%(\w+) = "stable_mosaic\.arith\.(\w+)"\(([^)]*)\)(?: (?:<?\{(.*?)\}>?))? :')
_VALUE = re.compile(r"value = (-?\d+|true|false)")
_PREDICATE = re.compile(r"predicate = (\d+)")
_RETURN = re.compile(r'func\.return"\(([^)]*)\)')
_ARGUMENT = re.compile(r"%(\w+)")
_BINARY: dict[str, Any] = {
    "addi": np.add, "subi": np.subtract, "muli": np.multiply, "maxsi": np.maximum, "minsi": np.minimum,
    "divsi": lambda a, b: np.trunc(a / b).astype(np.int64), "remsi": np.fmod, "floordivsi": np.floor_divide,
    "andi": np.bitwise_and, "ori": np.bitwise_or, "xori": np.bitwise_xor,
}  # fmt: skip
_COMPARE = (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)
_SAME = {"extsi", "extui", "trunci", "index_cast"}


def kernel_bytes(one: Instruction, arrays: Sequence[Array]) -> float | None:
    """Returns the bytes that a kernel reads from and writes to HBM, or None if its program does not say.

    It does not if the index of a block depends on data, or without a grid of blocks.

    Args:
        one: the instruction.
        arrays: the arrays of its operands and then of its results.
    """
    text = _kernel_program(one) if one.target == _TARGET else None
    grid = _GRID.search(text) if text else None
    if text is None or grid is None:
        return None
    windows = _WINDOW.findall(text)
    functions = _functions(text)
    if len(windows) != len(arrays) or any(name not in functions for name, _ in windows):
        return None
    sizes = _integers(grid[1])
    total = 0.0
    for (name, bounds), array in zip(windows, arrays, strict=True):
        moved = _blocks(functions[name], sizes)
        if moved is None:
            return None
        share = min(1.0, math.prod(_integers(bounds)) / max(1, math.prod(array.dims)))
        total += moved * share * array.hbm_bytes
    return total


def without_locations(lowered: str) -> str:
    """Returns the text of a lowered program in which kernels do not depend on the lines and folder of their source.

    A kernel is in the text as bytecode with source locations. It is replaced by its program's text, or stays as it is
    if this version of jax cannot read it.
    """
    return _BODY.sub(lambda body: body[1] + (_program(body[2]) or body[2]), lowered)


def _kernel_program(one: Instruction) -> str | None:
    """Returns the text of a compiled kernel's program, or None if this version of jax cannot read it."""
    start = one.attributes.find("backend_config=")
    if start < 0:
        return None
    try:
        config, _ = json.JSONDecoder().raw_decode(one.attributes, start + len("backend_config="))
        return _program(config["custom_call_config"]["body"])
    except (ValueError, KeyError):  # as in _program
        return None


def _program(body: str) -> str | None:
    """Returns the text of a kernel's program, without source locations.

    Args:
        body: its bytecode in base64.
    """
    try:
        # jax has no public reader of these programs.
        jaxlib: Any = importlib.import_module("jax._src.lib")
        ir: Any = importlib.import_module("jax._src.lib.mlir").ir
        with ir.Context() as context:
            jaxlib.tpu.register_dialect(context)
            context.allow_unregistered_dialects = True
            return str(ir.Module.parse(base64.b64decode(body)))
    except Exception:  # whatever changed between versions of jax: each caller goes on without the text
        return None


def _functions(text: str) -> dict[str, str]:
    """Returns the text of each function by its name, which is at its end."""
    parts = text.split('"stable_mosaic.func.func"')[1:]
    return {name[1]: part for part in parts if (name := list(_FUNCTION.finditer(part))[-1])}


def _blocks(function: str, grid: tuple[int, ...]) -> int | None:
    """Returns how often the index of a block, a function of the place in the grid, changes, the first one included."""
    places = np.indices(grid).reshape(len(grid), -1)
    values: dict[str, Any] = {f"arg{axis}": place for axis, place in enumerate(places)}
    for result, name, arguments, attributes in _OPERATION.findall(function):
        value = _value(name, [values.get(argument) for argument in _ARGUMENT.findall(arguments)], attributes)
        if value is not None:
            values[result] = value
    returned = _RETURN.search(function)
    names = _ARGUMENT.findall(returned[1]) if returned else []
    if not names or any(name not in values for name in names):
        return None
    index = np.stack([np.broadcast_to(values[name], places.shape[1]) for name in names])
    return 1 + int(np.sum(np.any(index[:, 1:] != index[:, :-1], axis=0)))


def _value(name: str, arguments: list[Any], attributes: str) -> Any:
    if name == "constant":
        value = _VALUE.search(attributes)
        return None if value is None else int(value[1] == "true") if value[1].isalpha() else int(value[1])
    if any(argument is None for argument in arguments):
        return None
    if name in _SAME:
        return arguments[0]
    if name == "select":
        return np.where(arguments[0], *arguments[1:])
    if name == "cmpi":
        predicate = _PREDICATE.search(attributes)
        return _COMPARE[int(predicate[1])](*arguments) if predicate and int(predicate[1]) < len(_COMPARE) else None
    return _BINARY[name](*arguments) if name in _BINARY else None


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))
