"""Floating-point operations of the matrix products of a compiled program.

The TPU compiler turns every product into a convolution; a batch axis becomes a window with a single valid position.
"""

import functools
import math
import re

import numpy as np

from block_recurrent.aot.hlo import Computation, Instruction, Program

_CONTRACTING = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_GROUPS = re.compile(r"batch_group_count=(\d+)")
_PRECISION = re.compile(r"operand_precision=\{(\w+),(\w+)\}")
_DECLARED = re.compile(r'"cost_estimate":\s*\{[^}]*"flops":\s*"?(\d+)')  # of a Pallas kernel
_PASSES = {"default": 1, "high": 3, "highest": 6}  # bfloat16 products that a TPU adds up to a float32 product


def product_flops(program: Program, within: Computation, one: Instruction) -> float:
    """Returns the operations of an instruction's matrix products, those inside a fusion included.

    A kernel counts the operations that it declares. A float32 product with a higher precision counts as the bfloat16
    products that a TPU adds up to it.
    """
    if one.opcode == "fusion":
        inner = program[one.called[0]]
        return sum(product_flops(program, inner, part) for part in inner.instructions.values())
    if one.opcode == "custom-call":
        declared = _DECLARED.search(one.attributes) if one.target == "tpu_custom_call" else None
        return float(declared[1]) if declared else 0.0
    if one.opcode not in ("dot", "convolution"):
        return 0.0
    left, right = (within.instructions[name].arrays[0] for name in one.operands[:2])
    result = one.arrays[0]
    if one.opcode == "dot":
        contracted = _CONTRACTING.search(one.attributes)
        axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
        flops = 2.0 * math.prod(result.dims) * math.prod(left.dims[axis] for axis in axes)
    else:
        flops = _convolution_flops(one.attributes, left.dims, right.dims, result.dims)
    precision = _PRECISION.search(one.attributes)
    wide = precision and "f32" in (left.dtype, right.dtype)
    return flops * (max(_PASSES.get(name, 1) for name in precision.groups()) if precision and wide else 1)


def _convolution_flops(
    attributes: str, left: tuple[int, ...], right: tuple[int, ...], result: tuple[int, ...]
) -> float:
    labels = _LABELS.search(attributes)
    assert labels is not None
    of_left, of_right, of_result = labels.groups()
    groups = _GROUPS.search(attributes)
    window = _WINDOW.search(attributes)
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    flops = 2.0 * left[of_left.index("b")] * result[of_result.index("f")] * right[of_right.index("i")]
    for axis in range(len(left) - 2):
        label = str(axis)
        sizes = (left[of_left.index(label)], right[of_right.index(label)], result[of_result.index(label)])
        flops *= _valid_positions(sizes, *(_field(fields, name, axis) for name in _DEFAULTS))
    return flops / (int(groups[1]) if groups else 1)


_DEFAULTS = {"pad": "0_0", "stride": "1", "lhs_dilate": "1", "rhs_dilate": "1"}


def _field(fields: dict[str, str], name: str, axis: int) -> int:
    value = fields[name].split("x")[axis] if name in fields else _DEFAULTS[name]
    return int(value.partition("_")[0])


@functools.lru_cache(maxsize=1024)
def _valid_positions(sizes: tuple[int, int, int], pad: int, stride: int, spread_left: int, spread_right: int) -> int:
    """Returns the number of pairs of a result and a window element at which the input has an element."""
    size, window, results = sizes
    place = np.arange(results)[:, None] * stride + np.arange(window)[None] * spread_right - pad
    return int(np.sum((place >= 0) & (place <= (size - 1) * spread_left) & (place % spread_left == 0)))
