"""Blocks that a Pallas kernel's grid fetches, counted by hand; texts of lowered kernels."""

import json
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from block_recurrent.aot.hlo import parse_program
from block_recurrent.aot.kernel_blocks import without_locations
from block_recurrent.aot.work import program_work

BLOCK = 8 * 128 * 4
GRID = (4, 3)


def add(a: Any, b: Any, c: Any) -> None:
    c[...] = a[...] + b[...]


def lowered_kernel(*indices: Callable[..., Any], kernel: Any = add) -> str:
    """Returns the text of a kernel on blocks of (32, 128), (32, 384) and (32, 384), lowered for a TPU."""
    blocks = [pl.BlockSpec((8, 128), index) for index in indices]
    call = pl.pallas_call(
        kernel,
        grid=GRID,
        in_specs=blocks[:2],
        out_specs=blocks[2],
        out_shape=jax.ShapeDtypeStruct((32, 384), jnp.float32),
        cost_estimate=pl.CostEstimate(flops=5, transcendentals=1, bytes_accessed=7),
    )
    traced = jax.jit(call).trace(jnp.zeros((32, 128)), jnp.zeros((32, 384)))
    return traced.lower(lowering_platforms=("tpu",)).as_text()


def work_of(*indices: Callable[..., Any]) -> Any:
    """Returns the work of a lowered kernel with these indices of its two operands and of its result."""
    config = re.search(r'backend_config = "((?:[^"\\]|\\.)*)"', lowered_kernel(*indices))
    assert config is not None
    unescaped = re.sub(r"\\([0-9A-F]{2})", lambda code: chr(int(code[1], 16)), config[1])
    attributes = f'custom_call_target="tpu_custom_call", backend_config={json.dumps(json.loads(unescaped))}'
    text = f"""
ENTRY %main (a: f32[32,128], b: f32[32,384]) -> f32[32,384] {{
  %a = f32[32,128]{{1,0:T(8,128)}} parameter(0)
  %b = f32[32,384]{{1,0:T(8,128)}} parameter(1)
  ROOT %k = f32[32,384]{{1,0:T(8,128)}} custom-call(%a, %b), {attributes}
}}
"""
    (one,) = program_work(parse_program(text))
    return one


@pytest.mark.parametrize(
    ("first", "second", "fetched"),
    [
        (lambda i, j: (i, 0), lambda i, j: (i, j), 4 + 12),  # a block that stays is fetched once
        (lambda i, j: (0, 0), lambda i, j: (j, i), 1 + 12),
        (lambda i, j: (j, 0), lambda i, j: (0, j), 12 + 12),  # the grid comes back to a block: fetched again
        (lambda i, j: (jax.lax.rem(i + j, 2), 0), lambda i, j: (jax.lax.div(i, 2), 0), 12 + 2),
        (lambda i, j: (jnp.where(j == 0, i, 3), 0), lambda i, j: (jnp.maximum(i - 1, 0), 2), 6 + 3),
    ],
)
def test_a_grid_fetches_a_block_when_its_index_changes(first, second, fetched):
    one = work_of(first, second, lambda i, j: (i, j))
    assert one.hbm_bytes == (fetched + 12) * BLOCK
    assert one.flops == 5


def test_a_result_that_the_grid_accumulates_is_written_once_for_each_block():
    assert work_of(lambda i, j: (i, 0), lambda i, j: (i, j), lambda i, j: (i, 0)).hbm_bytes == (4 + 12 + 4) * BLOCK


def test_the_text_without_locations_depends_on_the_kernel_alone():
    def lowered(source: str, file: str) -> str:
        names: dict[str, Any] = {}
        exec(compile(source, file, "exec"), names)
        return lowered_kernel(*[lambda i, j: (i, 0)] * 3, kernel=names["kernel"])

    one = lowered("def kernel(a, b, c): c[...] = a[...] + b[...]", "/one/kernel.py")
    moved = lowered("\n\ndef kernel(a, b, c): c[...] = a[...] + b[...]", "/two/kernel.py")
    other = lowered("def kernel(a, b, c): c[...] = a[...] - b[...]", "/one/kernel.py")
    assert one != moved
    assert without_locations(one) == without_locations(moved)
    assert without_locations(one) != without_locations(other)
