"""Reads the text of an optimised HLO program: computations, instructions, arrays and loops.

The grammar is in XLA's `hlo_parser.cc`; `jax.stages.Compiled.as_text` returns such a text.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple, TypeAlias

_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_NAME = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = ")
_OPERAND = re.compile(r"%([\w.\-]+)")
_COMMENT = re.compile(r"/\*.*?\*/")
_CALLED = re.compile(r"(?:body|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_INTEGER = re.compile(r"\((-?\d+)\)")
_ARRAY = re.compile(r"\b(pred|token|[a-z]+\d+(?:e\dm\d\w*)?)\[([\d,]*)\](?:\{([^{}]*)\})?")
_TILE = re.compile(r"T\(([\d,]+)\)")
_MEMORY = re.compile(r"S\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Array:
    """Shape of an array in a program.

    Attributes:
        dtype: XLA's name of it, such as `bf16`.
        dims: sizes of the axes.
        minor_to_major: the axes, the one with neighbouring elements first.
        tile: sizes of the tile to which the minor axes are padded, the most minor axis last; empty without tiles.
        memory_space: 0 is HBM; on a TPU, 1 is the vector memory (VMEM), and others are scalars, flags and the host.
    """

    dtype: str
    dims: tuple[int, ...]
    minor_to_major: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    memory_space: int = 0

    @property
    def logical_bytes(self) -> int:
        """Bytes of the elements, without padding."""
        return _bytes(self.dtype, math.prod(self.dims))

    @property
    def bytes(self) -> int:
        """Bytes in memory: on a TPU, the minor axes are padded to whole tiles."""
        sizes = [self.dims[axis] for axis in self.minor_to_major] or list(reversed(self.dims))
        for place, tile in enumerate(reversed(self.tile)):
            if place < len(sizes):
                sizes[place] = -(-sizes[place] // tile) * tile
        return _bytes(self.dtype, math.prod(sizes))

    @property
    def hbm_bytes(self) -> int:
        """Bytes in HBM: 0 for an array in another memory."""
        return 0 if self.memory_space else self.bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: its name, which is unique in the program.
        opcode: such as `fusion` or `while`.
        result: text of the result's shape; `arrays` parses it.
        operands: names of the operands.
        attributes: text after the operands.
        arguments: text of the operands, which is the value of a constant and the number of a parameter.
        is_root: whether it is the computation's result.
    """

    name: str
    opcode: str
    result: str
    operands: tuple[str, ...]
    attributes: str
    arguments: str
    is_root: bool

    @functools.cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Arrays of the result; several for a tuple."""
        return parse_arrays(self.result)

    @property
    def target(self) -> str:
        """Name of the function of a `custom-call`; empty for others."""
        target = _TARGET.search(self.attributes) if self.opcode == "custom-call" else None
        return target[1] if target else ""

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls; a loop's condition is not one of them."""
        branches = _BRANCHES.search(self.attributes)
        listed = [name.strip().lstrip("%") for name in branches[1].split(",")] if branches else []
        return (*_CALLED.findall(self.attributes), *listed)


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions by name, in the order of execution.

    Attributes:
        instructions: by name.
        is_entry: whether the program starts here.
    """

    instructions: dict[str, Instruction]
    is_entry: bool

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction that computes the result."""
        return next(one for one in self.instructions.values() if one.is_root)

    def parameter(self, number: int) -> Instruction | None:
        """Returns the instruction of a parameter, or None if there is none."""
        return self._parameters.get(number)

    def users(self, name: str) -> list[Instruction]:
        """Returns the instructions with an operand of this name."""
        return self._users.get(name, [])

    @functools.cached_property
    def _parameters(self) -> dict[int, Instruction]:
        parameters = (one for one in self.instructions.values() if one.opcode == "parameter")
        return {int(number[1]): one for one in parameters if (number := _INTEGER.match(one.arguments))}

    @functools.cached_property
    def _users(self) -> dict[str, list[Instruction]]:
        users: dict[str, list[Instruction]] = {}
        for one in self.instructions.values():
            for name in dict.fromkeys(one.operands):
                users.setdefault(name, []).append(one)
        return users


class Execution(NamedTuple):
    """An instruction that a program executes.

    Attributes:
        instruction: the instruction.
        within: its computation.
        times: number of executions; None in a loop with an unknown number of iterations.
    """

    instruction: Instruction
    within: Computation
    times: int | None


Program: TypeAlias = dict[str, Computation]  # computations by name


def parse_program(text: str) -> Program:
    """Returns the computations of a program by name."""
    return dict(_computations(text))


def executions(program: Program, entered: Collection[str] | None = None) -> Iterator[Execution]:
    """Returns the instructions that a program executes and how often; those of every branch of a conditional.

    Args:
        program: from `parse_program`.
        entered: opcodes of instructions whose called computations are included; None includes all.
    """
    start = next(one for one in program.values() if one.is_entry)

    def visit(within: Computation, times: int | None) -> Iterator[Execution]:
        for one in within.instructions.values():
            yield Execution(one, within, times)
            if entered is None or one.opcode in entered:
                again = trips(one, program) if one.opcode == "while" else 1
                for called in (program[name] for name in one.called if name in program):
                    yield from visit(called, None if times is None or again is None else times * again)

    return visit(start, 1)


def trips(loop: Instruction, program: Program) -> int | None:
    """Returns the number of iterations of a `while` instruction, or None if it is unknown."""
    if recorded := _TRIPS.search(loop.attributes):
        return int(recorded[1])
    # The TPU compiler does not record the number of iterations; a loop of `jax.lax.scan` counts from 0 to a constant.
    condition = _CONDITION.search(loop.attributes)
    lines = program[condition[1]].instructions.values() if condition and condition[1] in program else ()
    bounds = [
        int(value[1])
        for one in lines
        if one.opcode == "constant"
        and re.match(r"[su]\d+\[\]", one.result)
        and (value := _INTEGER.match(one.arguments))
    ]
    counts_up = any(one.is_root and "direction=LT" in one.attributes for one in lines)
    return bounds[0] if counts_up and len(bounds) == 1 else None


@functools.lru_cache(maxsize=65536)
def parse_arrays(shape: str) -> tuple[Array, ...]:
    """Returns the arrays of a shape's text, such as `(f32[8,128]{1,0:T(8,128)}, s32[])`."""
    return tuple(_array(*groups) for groups in _ARRAY.findall(shape))


def _array(dtype: str, dims: str, layout: str) -> Array:
    order, _, physical = layout.partition(":")
    tile, space = _TILE.search(physical), _MEMORY.search(physical)
    return Array(
        dtype,
        _integers(dims),
        _integers(order),
        _integers(tile[1]) if tile else (),
        int(space[1]) if space else 0,
    )


def _computations(text: str) -> Iterator[tuple[str, Computation]]:
    name, instructions, is_entry = None, {}, False
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name, instructions, is_entry = header[1], {}, line.startswith("ENTRY")
        elif line.startswith("}") and name is not None:
            yield name, Computation(instructions, is_entry)
            name = None
        elif name is not None and (one := _instruction(line)):
            instructions[one.name] = one


def _instruction(line: str) -> Instruction | None:
    line = _COMMENT.sub("", line)
    start = _NAME.match(line)
    if start is None:
        return None
    rest = line[start.end() :]
    split = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    result, call = rest[:split], rest[split:].lstrip()
    opened = call.index("(")
    closed = _closing(call, opened)
    arguments = call[opened : closed + 1]
    return Instruction(
        name=start[2],
        opcode=call[:opened],
        result=result,
        operands=tuple(_OPERAND.findall(arguments)),
        attributes=call[closed + 1 :],
        arguments=arguments,
        is_root=start[1] is not None,
    )


def _closing(text: str, start: int) -> int:
    """Returns the index of the parenthesis that closes the one at `start`."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            return index
    raise ValueError(f"no closing parenthesis in {text[start : start + 80]!r}")


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def _bytes(dtype: str, elements: int) -> int:
    if dtype == "token":
        return 0
    bits = re.search(r"\d+", dtype)
    return -(-elements * (int(bits[0]) if bits else 8) // 8)  # pred has no number and takes a byte
