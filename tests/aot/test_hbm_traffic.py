"""HBM traffic and products of programs whose work is known by hand: jax's, and texts like those of the TPU compiler."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.aot.hlo import Array, parse_arrays, parse_program
from block_recurrent.aot.work import Work, program_work, total_flops, total_hbm_bytes

KB = 1024


def work_of(text: str) -> list[Work]:
    return program_work(parse_program(text))


def compiled(function: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    text = jax.jit(function, **options).lower(*arguments).compile().as_text()
    assert text is not None
    return text


def traffic(text: str) -> float:
    return total_hbm_bytes(work_of(text))


def test_an_array_has_its_padded_bytes_and_its_memory():
    assert parse_arrays("(bf16[8,200]{1,0:T(8,128)(2,1)S(1)}, f32[3,5]{0,1:T(8,128)}, pred[7], s4[3], token[])") == (
        Array("bf16", (8, 200), (1, 0), (8, 128), 1),
        Array("f32", (3, 5), (0, 1), (8, 128)),
        Array("pred", (7,)),
        Array("s4", (3,)),
        Array("token", ()),
    )
    padded, column, plain, nibbles, token = parse_arrays(
        "(bf16[8,200]{1,0:T(8,128)}, f32[3,5]{0,1:T(8,128)}, pred[7], s4[3], token[])"
    )
    assert (padded.bytes, padded.logical_bytes) == (8 * 256 * 2, 8 * 200 * 2)
    assert column.bytes == 8 * 128 * 4  # the first axis is the minor one: 3 elements fill a lane of 128, 5 columns 8
    assert (plain.bytes, nibbles.bytes, token.bytes) == (7, 2, 0)


def test_a_copy_reads_and_writes_its_array_once():
    text = compiled(lambda x: jnp.transpose(x).copy(), jnp.zeros((256, 512)))
    assert traffic(text) == 2 * 256 * 512 * 4


def test_a_chain_of_elementwise_functions_is_one_pass():
    x = jnp.zeros((512, KB))
    assert traffic(compiled(lambda x, y: jnp.tanh(x * y + 1) - x, x, x)) == 3 * x.nbytes


def test_a_loop_repeats_its_traffic():
    def step(carry, _):
        return jnp.sin(carry), None

    x = jnp.zeros((512, KB))
    once = traffic(compiled(jnp.sin, x))
    for length in (7, 12):
        repeated = traffic(compiled(lambda x, n=length: jax.lax.scan(step, x, None, length=n)[0], x, donate_argnums=0))
        assert repeated == pytest.approx(length * once, rel=1e-3, abs=2 * x.nbytes)  # and at most a copy of the carry


def test_a_loop_reads_a_slice_of_its_inputs_and_writes_one_of_its_outputs():
    def step(carry, x):
        return carry, x * 2

    x = jnp.zeros((16, 64, KB))
    found = traffic(compiled(lambda x: jax.lax.scan(step, 0.0, x)[1], x))
    assert found == pytest.approx(2 * x.nbytes, rel=0.6)  # in slices; whole arrays would be 16 times as much
    assert found < 4 * x.nbytes


def test_an_in_place_update_writes_the_slice_alone():
    def update(x, y):
        return jax.lax.dynamic_update_slice(x, y + 1, (3, 0))

    x, y = jnp.zeros((2048, KB)), jnp.zeros((8, KB))
    assert traffic(compiled(update, x, y, donate_argnums=0)) == pytest.approx(2 * y.nbytes, rel=1e-3)


TPU = """
HloModule jit_step, is_scheduled=true

%product (p0: bf16[1024,512], p1: bf16[512,256]) -> bf16[1024,256] {
  %p0 = bf16[1024,512]{1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[512,256]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %c = bf16[1024,256]{1,0:T(8,128)(2,1)} convolution(%p0, %p1), dim_labels=bf_io->bf
}

%stack (q0: f32[9,64,128], q1: f32[64,128], q2: s32[]) -> f32[9,64,128] {
  %q0 = f32[9,64,128]{2,1,0:T(8,128)} parameter(0)
  %q1 = f32[64,128]{1,0:T(8,128)} parameter(1)
  %b = f32[1,64,128]{2,1,0:T(8,128)} bitcast(%q1)
  %q2 = s32[]{:T(128)} parameter(2)
  ROOT %d = f32[9,64,128]{2,1,0:T(8,128)} dynamic-update-slice(%q0, %b, %q2, %q2, %q2)
}

%take (r0: f32[9,64,128], r1: s32[]) -> f32[64,128] {
  %r0 = f32[9,64,128]{2,1,0:T(8,128)} parameter(0)
  %r1 = s32[]{:T(128)S(6)} parameter(1)
  %h = bf16[9,64,128]{2,1,0:T(8,128)(2,1)} convert(%r0)
  %s = bf16[1,64,128]{2,1,0:T(8,128)(2,1)} dynamic-slice(%h, %r1, %r1, %r1), dynamic_slice_sizes={1,64,128}
  %e = bf16[64,128]{1,0:T(8,128)(2,1)} bitcast(%s)
  ROOT %n = f32[64,128]{1,0:T(8,128)} convert(%e)
}

ENTRY %main (a: bf16[1024,512], w: bf16[512,256], x: f32[9,64,128], i: s32[]) -> f32[9,64,128] {
  %a = bf16[1024,512]{1,0:T(8,128)(2,1)} parameter(0)
  %w = bf16[512,256]{1,0:T(8,128)(2,1)} parameter(1)
  %x = f32[9,64,128]{2,1,0:T(8,128)} parameter(2)
  %i = s32[]{:T(128)S(6)} parameter(3)
LINES
}
"""
BLOCK = 64 * 128 * 4


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (  # a product reads both matrices and writes one
            "ROOT %f = bf16[1024,256]{1,0:T(8,128)(2,1)} fusion(%a, %w), kind=kOutput, calls=%product",
            2 * (1024 * 512 + 512 * 256 + 1024 * 256),
        ),
        (  # the result stays in VMEM
            "ROOT %f = bf16[1024,256]{1,0:T(8,128)(2,1)S(1)} fusion(%a, %w), kind=kOutput, calls=%product",
            2 * (1024 * 512 + 512 * 256),
        ),
        (  # a fusion takes one of nine slices, although it converts all of them first
            "ROOT %t = f32[64,128]{1,0:T(8,128)} fusion(%x, %i), kind=kLoop, calls=%take",
            2 * BLOCK,
        ),
        (  # and writes one of nine, in place
            "%t = f32[64,128]{1,0:T(8,128)S(1)} fusion(%x, %i), kind=kLoop, calls=%take\n"
            "ROOT %u = f32[9,64,128]{2,1,0:T(8,128)} fusion(%x, %t, %i), kind=kLoop, calls=%stack",
            2 * BLOCK,
        ),
        (  # a transfer to VMEM reads the array or a slice of it, and its use there is free
            "%s = (bf16[512,256]{1,0:T(8,128)(2,1)}, bf16[512,256]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%w)\n"
            "%v = bf16[512,256]{1,0:T(8,128)(2,1)S(1)} copy-done(%s)\n"
            "%p = ((f32[9,64,128]{2,1,0}), f32[2,64,128]{2,1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%x)\n"
            "%q = f32[2,64,128]{2,1,0:T(8,128)S(1)} slice-done(%p)\n"
            "ROOT %f = bf16[512,256]{1,0:T(8,128)(2,1)} negate(%v)",
            2 * 512 * 256 + 2 * BLOCK + 2 * 512 * 256,
        ),
        (  # a kernel: operands and result once
            'ROOT %k = f32[64,128]{1,0:T(8,128)} custom-call(%x), custom_call_target="tpu_custom_call"',
            10 * BLOCK,
        ),
        (  # buffers, tuples and views move nothing
            '%o = f32[9,64,128]{2,1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"\n'
            "%v = f32[576,128]{1,0:T(8,128)} bitcast(%x)\n"
            "ROOT %z = (f32[9,64,128]{2,1,0:T(8,128)}, f32[576,128]{1,0:T(8,128)}) tuple(%o, %v)",
            0,
        ),
    ],
)  # fmt: skip
def test_traffic_of_an_instruction_for_a_tpu(lines, expected):
    assert traffic(TPU.replace("LINES", lines)) == expected


def test_a_transfer_overlaps_with_everything_and_a_product_does_not():
    line = "%s = (f32[9,64,128]{2,1,0}, f32[9,64,128]{2,1,0:S(1)}, u32[]{:S(2)}) copy-start(%x)"
    done = "ROOT %v = f32[9,64,128]{2,1,0:T(8,128)S(1)} copy-done(%s)"
    assert work_of(TPU.replace("LINES", f"{line}\n{done}")) == [Work(9 * BLOCK, 0.0, asynchronous=True)]
    product = "ROOT %f = bf16[1024,256]{1,0:T(8,128)(2,1)} fusion(%a, %w), kind=kOutput, calls=%product"
    (one,) = work_of(TPU.replace("LINES", product))
    assert (one.flops, one.asynchronous) == (2.0 * 1024 * 512 * 256, False)


def test_a_loop_of_unknown_length_is_counted_once_and_named():
    x = jnp.ones((256, KB))
    work = work_of(compiled(lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 100, lambda x: x * 2, x), x))
    assert any(one.in_unknown_loop and one.times == 1 for one in work)


def test_products_count_multiplications_and_additions():
    a, b = jnp.zeros((5, 64, 32)), jnp.zeros((5, 32, 16))
    text = """
ENTRY %main (a: f32[5,64,32], b: f32[5,32,16]) -> f32[5,64,16] {
  %a = f32[5,64,32]{2,1,0} parameter(0)
  %b = f32[5,32,16]{2,1,0} parameter(1)
  ROOT %d = f32[5,64,16]{2,1,0} LINE
}
"""
    expected = 2 * a.size * b.shape[-1]
    dot = "dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}"
    assert total_flops(work_of(text.replace("LINE", dot))) == expected
    # A batch axis as a window: of 5 x 5 positions, 5 are inside.
    window = "convolution(%a, %b), window={size=5 stride=4 pad=0_0 lhs_dilate=5}, dim_labels=0bf_0io->0bf"
    assert total_flops(work_of(text.replace("LINE", window))) == expected
    highest = f"{dot}, operand_precision={{highest,highest}}"
    assert total_flops(work_of(text.replace("LINE", highest))) == 6 * expected


def test_a_kernel_counts_the_products_that_it_declares():
    line = (
        'ROOT %k = f32[64,128]{1,0:T(8,128)} custom-call(%x), custom_call_target="tpu_custom_call", backend_config='
        '{"custom_call_config":{"body":"TUzv","cost_estimate":{"transcendentals":"3","flops":"500","bytes_accessed":"7"}}}'
    )
    (one,) = work_of(TPU.replace("LINES", line))
    assert (one.flops, one.hbm_bytes) == (500, 10 * BLOCK)


def convolved(x: np.ndarray, kernel: np.ndarray, pad: int, stride: int, spread: int) -> int:
    """Returns the number of products of a one-dimensional convolution that do not meet padding."""
    inside = np.zeros((len(x) - 1) * spread + 1 + 2 * pad)
    inside[pad : len(inside) - pad : spread] = 1
    starts = range(0, len(inside) - len(kernel) + 1, stride)
    return int(sum(inside[start : start + len(kernel)].sum() for start in starts))


@pytest.mark.parametrize(("pad", "stride", "spread"), [(0, 1, 1), (3, 1, 1), (2, 2, 1), (1, 1, 2), (4, 3, 2)])
def test_products_of_a_convolution_leave_out_padding(pad, stride, spread):
    valid = convolved(np.ones(10), np.ones(4), pad, stride, spread)
    results = ((10 - 1) * spread + 1 + 2 * pad - 4) // stride + 1
    window = f"size=4 stride={stride} pad={pad}_{pad} lhs_dilate={spread}"
    text = f"""
ENTRY %main (a: f32[3,10,6], b: f32[4,6,7]) -> f32[3,{results},7] {{
  %a = f32[3,10,6]{{2,1,0}} parameter(0)
  %b = f32[4,6,7]{{2,1,0}} parameter(1)
  ROOT %c = f32[3,{results},7]{{2,1,0}} convolution(%a, %b), window={{{window}}}, dim_labels=b0f_0io->b0f
}}
"""
    assert total_flops(work_of(text)) == 2 * 3 * 6 * 7 * valid
