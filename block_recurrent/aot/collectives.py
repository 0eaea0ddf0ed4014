"""Communication between devices in one step, read from the text of the compiled program."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_CALLED = re.compile(r"(?:body|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONDITION = re.compile(r" while\(.*condition=%?([\w.\-]+)")
_BOUND = re.compile(r" = [su]\d+\[\]\S* constant\((\d+)\)")
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(_KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+(?:e\dm\d\w*)?)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in one execution of the program.

    Attributes:
        count: number of executed collectives.
        bytes: total size of their results on one device.
    """

    count: int
    bytes: int


def collectives(program: str) -> dict[str, Traffic]:
    """Counts the executed collectives of each kind, multiplying those in a loop by its number of iterations.

    Args:
        program: optimised HLO, as returned by `jax.stages.Compiled.as_text`.

    Raises:
        ValueError: a loop with collectives has an unknown number of iterations.
    """
    computations = dict(_computations(program))
    entry = next(name for name, (_, is_entry) in computations.items() if is_entry)
    counts: collections.Counter[str] = collections.Counter()
    sizes: collections.Counter[str] = collections.Counter()

    def visit(name: str, times: int | None) -> None:
        for line in computations.get(name, ([], False))[0]:
            if operation := _OPERATION.search(line):
                if times is None:
                    raise ValueError(f"a collective in a loop with an unknown number of iterations: {line.strip()}")
                counts[operation[2]] += times
                sizes[operation[2]] += times * _result_bytes(operation[1], started=operation[3] is not None)
            trips = _trips(line, computations)
            for called in _called(line):
                visit(called, None if times is None or trips is None else times * trips)

    visit(entry, 1)
    return {kind: Traffic(counts[kind], sizes[kind]) for kind in _KINDS if counts[kind]}


def _computations(program: str) -> Iterator[tuple[str, tuple[list[str], bool]]]:
    name, lines, is_entry = None, [], False
    for line in program.splitlines():
        if header := _HEADER.match(line):
            name, lines, is_entry = header[1], [], line.startswith("ENTRY")
        elif line.startswith("}") and name is not None:
            yield name, (lines, is_entry)
            name = None
        elif name is not None:
            lines.append(line)


def _trips(line: str, computations: dict[str, tuple[list[str], bool]]) -> int | None:
    """Returns how often the computations called on a line are executed, or None if that is unknown."""
    condition = _CONDITION.search(line)
    if condition is None:
        return 1
    if recorded := _TRIPS.search(line):
        return int(recorded[1])
    # The TPU compiler does not record the number of iterations; a loop of `jax.lax.scan` counts from 0 to a constant.
    lines = computations.get(condition[1], ([], False))[0]
    bounds = [int(bound[1]) for text in lines if (bound := _BOUND.search(text))]
    counts_up = any("ROOT" in text and "direction=LT" in text for text in lines)
    return bounds[0] if counts_up and len(bounds) == 1 else None


def _called(line: str) -> list[str]:
    branches = _BRANCHES.search(line)
    listed = [name.strip().lstrip("%") for name in branches[1].split(",")] if branches else []
    return _CALLED.findall(line) + listed


def _result_bytes(shape: str, *, started: bool) -> int:
    """Returns the bytes of a result.

    The result of a `-start` operation also contains the operands; its largest array is used.
    """
    sizes = [_width(dtype) * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in _ARRAY.findall(shape)]
    return max(sizes, default=0) if started else sum(sizes)


def _width(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else 1
