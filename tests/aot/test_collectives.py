"""Counts of collectives in a program written by hand and in one compiled by jax."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from block_recurrent.aot.collectives import Traffic, collectives
from block_recurrent.aot.hlo import parse_program
from block_recurrent.config import MeshConfig
from block_recurrent.parallel.sharding import make_mesh

PROGRAM = """
HloModule jit_step, is_scheduled=true

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %gather = bf16[4,8]{1,0} all-gather(%x), dimensions={0}
  ROOT %fused = f32[8]{0} fusion(%x), kind=kLoop, calls=%inner
}

%inner (q: f32[8]) -> f32[8] {
  ROOT %scatter = f32[2]{0} reduce-scatter(%q), to_apply=%add
}

%less_than (p: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%a, %b), direction=LT
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %start = (f32[100]{0}, f32[100]{0}) all-reduce-start(%a), to_apply=%add
  %done = f32[100]{0} all-reduce-done(%start)
  %pair = (f32[8]{0}, f32[4]{0}) all-reduce(%a, %b), to_apply=%add
  ROOT %l = (s32[], f32[8]) while(%t), condition=%less_than, body=%body, backend_config={"known_trip_count":{"n":"7"}}
}
"""


def collectives_of(text: str) -> dict[str, Traffic]:
    return collectives(parse_program(text))


def test_collectives_in_a_loop_are_counted_once_per_iteration():
    assert collectives_of(PROGRAM) == {
        "all-reduce": Traffic(count=2, bytes=400 + 48),
        "all-gather": Traffic(count=7, bytes=7 * 64),
        "reduce-scatter": Traffic(count=7, bytes=7 * 8),
    }


def test_an_unrecorded_number_of_iterations_is_read_from_the_condition():
    recorded = ', backend_config={"known_trip_count":{"n":"7"}}'
    bound = "  %bound = s32[]{:T(128)} constant(7)\n  ROOT %less"
    assert collectives_of(PROGRAM.replace(recorded, "").replace("  ROOT %less", bound)) == collectives_of(PROGRAM)
    with pytest.raises(ValueError, match="all-gather"):
        collectives_of(PROGRAM.replace(recorded, ""))


def test_a_sum_over_devices_compiles_to_one_all_reduce():
    mesh = make_mesh(MeshConfig())
    x = jax.ShapeDtypeStruct((64, 3), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))
    replicated = NamedSharding(mesh, PartitionSpec())
    program = jax.jit(lambda x: x.sum(axis=0), out_shardings=replicated).lower(x).compile().as_text()
    assert program is not None
    assert collectives_of(program) == {"all-reduce": Traffic(count=1, bytes=12)}
