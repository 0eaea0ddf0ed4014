"""Bytes that each instruction of a compiled program reads from and writes to HBM.

An instruction reads its operands once and writes its results once. A fusion is one instruction: what happens inside
stays in the cores. Arrays that the compiler has placed in another memory (VMEM, or CMEM on v4) do not count, only the
copies from HBM and back. A Pallas kernel counts each block as often as its grid fetches it, where its program says so
(`kernel_blocks`).
"""

import math

from block_recurrent.aot.hlo import Computation, Instruction, Program
from block_recurrent.aot.kernel_blocks import kernel_bytes

# Instructions that move no bytes.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "add-dependency",
    "partition-id", "replica-id", "while", "call", "conditional", "async-update",
}  # fmt: skip
_FREE_TARGETS = ("AllocateBuffer", "AssumeGatherIndicesInBound", "Sharding")  # of `custom-call`
_SLICES = {"slice", "dynamic-slice", "gather"}
# Inside a fusion, only those elements of these instructions are computed that a later slice needs.
_ELEMENTWISE = {"bitcast", "convert", "copy", "reshape", "transpose"}


def hbm_bytes(program: Program, within: Computation, one: Instruction) -> float:
    """Returns the bytes that one execution of an instruction reads from and writes to HBM.

    Args:
        program: all computations.
        within: the instruction's computation, which no fusion calls.
        one: the instruction. The bodies of a loop or call are not included.
    """
    if one.opcode in _FREE or one.opcode.endswith("-start") or one.target in _FREE_TARGETS:
        return 0  # a transfer is counted where it ends
    sources = [array for name in one.operands for array in within.instructions[name].arrays]
    if (of_blocks := kernel_bytes(one, [*sources, *one.arrays])) is not None:
        return of_blocks
    written = _written_share(program, within, one)
    started = _start(within, one)
    total = sum(array.hbm_bytes * share for array, share in zip(one.arrays, written, strict=True))
    for name in dict.fromkeys(started.operands):
        source = within.instructions[name]
        places = [place for place, operand in enumerate(started.operands) if operand == name]
        share = min(1.0, sum(_read_share(program, within, started, place, fused=False) for place in places))
        total += share * sum(array.hbm_bytes for array in source.arrays)
    return total


def is_asynchronous(one: Instruction) -> bool:
    """Returns whether an instruction is the end of a transfer that other instructions overlap with."""
    return one.opcode.endswith("-done")


def _start(within: Computation, one: Instruction) -> Instruction:
    """Returns the start of an asynchronous transfer for its end, and any other instruction itself."""
    while one.opcode.endswith("-done") or one.opcode == "async-update":
        one = within.instructions[one.operands[0]]
    return one


def _read_share(program: Program, within: Computation, one: Instruction, place: int, *, fused: bool) -> float:
    """Returns the share of an operand's elements that an instruction reads.

    Args:
        program: all computations.
        within: the instruction's computation.
        one: the instruction.
        place: index of the operand.
        fused: whether a fusion calls the computation.
    """
    if one.opcode == "fusion":
        inner = program[one.called[0]]
        return _share_of_uses(program, inner, inner.parameter(place))
    kind = one.opcode.removesuffix("-start")
    if kind in _SLICES and place == 0:
        return min(
            1.0, _elements(one, -1 if kind == one.opcode else 1) / _elements(within.instructions[one.operands[0]])
        )
    if one.opcode == "dynamic-update-slice" and place == 0:
        return 0.0 if not fused or _is_result(within, one) else 1.0  # in place
    if one.opcode == "scatter" and place == 0:
        return min(1.0, _elements(within.instructions[one.operands[-1]]) / _elements(one))
    if fused and one.opcode in _ELEMENTWISE and not one.is_root:
        return _share_of_uses(program, within, one)
    return 1.0


def _share_of_uses(program: Program, within: Computation, value: Instruction | None) -> float:
    if value is None:
        return 0.0
    uses = (
        (user, place) for user in within.users(value.name) for place, n in enumerate(user.operands) if n == value.name
    )
    return min(1.0, sum(_read_share(program, within, user, place, fused=True) for user, place in uses))


def _written_share(program: Program, within: Computation, one: Instruction) -> list[float]:
    """Returns the share of each result's elements that an instruction writes; in-place updates write a part."""
    if one.opcode == "fusion":
        inner = program[one.called[0]]
        return _written_share(program, inner, inner.root)
    if one.opcode == "tuple":
        return [share for name in one.operands for share in _written_share(program, within, within.instructions[name])]
    if one.opcode in ("bitcast", "reshape") and one.operands:
        return _written_share(program, within, within.instructions[one.operands[0]])
    if one.opcode == "dynamic-update-slice":
        base, update = (within.instructions[name] for name in one.operands[:2])
        share = _elements(update) / _elements(one)
        return [min(1.0, share + _written_before(program, within, base))]
    if one.opcode == "scatter" and len(one.arrays) == 1:
        return [min(1.0, _elements(within.instructions[one.operands[-1]]) / _elements(one))]
    return [1.0] * len(one.arrays)


def _written_before(program: Program, within: Computation, base: Instruction) -> float:
    """Returns the share of an updated array that its own computation writes before the update."""
    while base.opcode in ("bitcast", "reshape"):
        base = within.instructions[base.operands[0]]
    if base.opcode in ("dynamic-update-slice", "fusion"):
        return _written_share(program, within, base)[0]
    return 0.0 if base.opcode in ("parameter", "get-tuple-element", "custom-call") else 1.0


def _is_result(within: Computation, one: Instruction) -> bool:
    """Returns whether the computation returns an instruction's result unchanged."""
    if one.is_root:
        return True
    passing = ("bitcast", "tuple", "dynamic-update-slice")
    users = within.users(one.name)
    return bool(users) and all(user.opcode in passing and _is_result(within, user) for user in users)


def _elements(one: Instruction, index: int = -1) -> int:
    return max(1, math.prod(one.arrays[index].dims))
