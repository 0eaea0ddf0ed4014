"""Communication between devices in one step, read from the text of the compiled program."""

import collections
import dataclasses

from block_recurrent.aot.hlo import Instruction, Program, executions

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in one execution of the program.

    Attributes:
        count: number of executed collectives.
        bytes: total size of their results on one device.
    """

    count: int
    bytes: int


def collectives(program: Program) -> dict[str, Traffic]:
    """Counts the executed collectives of each kind, multiplying those in a loop by its number of iterations.

    Args:
        program: from `parse_program`.

    Raises:
        ValueError: a loop with collectives has an unknown number of iterations.
    """
    counts: collections.Counter[str] = collections.Counter()
    sizes: collections.Counter[str] = collections.Counter()
    for one, _, times in executions(program):
        kind = one.opcode.removesuffix("-start")
        if kind in _KINDS:
            if times is None:
                raise ValueError(f"a collective in a loop with an unknown number of iterations: {one.name} ({kind})")
            counts[kind] += times
            sizes[kind] += times * _result_bytes(one)
    return {kind: Traffic(counts[kind], sizes[kind]) for kind in _KINDS if counts[kind]}


def _result_bytes(one: Instruction) -> int:
    """Returns the bytes of a result.

    The result of a `-start` operation also contains the operands; its largest array is used.
    """
    sizes = [array.logical_bytes for array in one.arrays]
    return max(sizes, default=0) if one.opcode.endswith("-start") else sum(sizes)
