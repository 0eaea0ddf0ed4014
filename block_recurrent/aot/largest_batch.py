"""The largest batch that trains on a slice: extrapolated from two compilations and confirmed by a third."""

import dataclasses

from block_recurrent.aot.advice import advice
from block_recurrent.aot.compile import USABLE_SHARE, CompiledStep, compile_step
from block_recurrent.aot.topology import Topology
from block_recurrent.config import RunConfig
from block_recurrent.errors import InputError
from block_recurrent.parallel.sharding import mesh_shape


def largest_batch(run: RunConfig, topology: Topology) -> str:
    """Finds the largest batch that trains on a slice.

    Args:
        run: the experiment; its batch size is ignored.
        topology: the slice.

    Returns:
        The result, in one sentence.

    Raises:
        InputError: the mesh does not match the slice, or memory does not grow with the batch.
    """
    shape = mesh_shape(run.mesh, topology.num_chips * topology.chip.devices)
    unit = shape["data"] * shape["fsdp"] * run.train.accumulate_steps

    def compiled(multiple: int) -> CompiledStep:
        data = dataclasses.replace(run.data, batch_size=unit * multiple)
        return compile_step("train", dataclasses.replace(run, data=data), topology)

    one, two = compiled(1), compiled(2)
    if not one.fits:
        return f"the smallest batch, {unit} rows, does not fit {topology.name}: {advice(one, run)}"
    growth = two.peak - one.peak
    if growth <= 0:
        raise InputError(f"--largest-batch: memory did not grow from {unit} to {2 * unit} rows; cannot extrapolate")
    multiple = 1 + int((USABLE_SHARE * one.capacity - one.peak) // growth)
    confirmed = compiled(multiple)
    verdict = "confirmed" if confirmed.fits else "NOT confirmed"
    return (
        f"largest batch on {topology.name}: about {unit * multiple} rows ({multiple} x {unit}), {growth / 1e9:.2f} GB "
        f"for every {unit} more rows; {verdict} by compiling it: {confirmed.peak / 1e9:.2f} of "
        f"{confirmed.capacity / 1e9:.1f} GB"
    )
