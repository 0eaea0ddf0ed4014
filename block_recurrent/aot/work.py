"""Work of each instruction of a compiled program on one device: HBM traffic, matrix products, number of executions."""

import dataclasses
from collections.abc import Sequence

from block_recurrent.aot.hbm_traffic import hbm_bytes, is_asynchronous
from block_recurrent.aot.hlo import Program, executions
from block_recurrent.aot.products import product_flops

_ENTERED = ("while", "call", "conditional")  # a fusion is one instruction


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of one instruction.

    Attributes:
        hbm_bytes: bytes that one execution reads from and writes to HBM.
        flops: floating-point operations of one execution's matrix products.
        times: number of executions; 1 in a loop with an unknown number of iterations.
        asynchronous: whether it is a transfer that other instructions overlap with.
        in_unknown_loop: whether it is in a loop with an unknown number of iterations.
    """

    hbm_bytes: float
    flops: float
    times: int = 1
    asynchronous: bool = False
    in_unknown_loop: bool = False


def program_work(program: Program) -> list[Work]:
    """Returns the work of each instruction that moves bytes or multiplies matrices."""
    work = [
        Work(
            hbm_bytes(program, within, one),
            product_flops(program, within, one),
            1 if times is None else times,
            is_asynchronous(one),
            times is None,
        )
        for one, within, times in executions(program, _ENTERED)
    ]
    return [one for one in work if one.hbm_bytes or one.flops]


def total_hbm_bytes(work: Sequence[Work]) -> float:
    """Returns the bytes that one execution of the program reads from and writes to HBM."""
    return sum(one.hbm_bytes * one.times for one in work)


def total_flops(work: Sequence[Work]) -> float:
    """Returns the floating-point operations of all matrix products of one execution of the program."""
    return sum(one.flops * one.times for one in work)
