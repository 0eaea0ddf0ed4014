"""Published figures of TPU chips (docs.cloud.google.com/tpu/docs/system-architecture)."""

import dataclasses

_GIB = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One generation of TPU, figures of one chip.

    Attributes:
        name: as Cloud TPU calls it.
        device_kind: as jax calls a device of it.
        devices: how many jax devices a chip is.
        memory: bytes of HBM.
        memory_bandwidth: bytes per second between HBM and the cores.
        peak_flops: operations per second in bfloat16.
        link_bandwidth: bytes per second to its neighbours over all links, both directions together.
    """

    name: str
    device_kind: str
    devices: int = 1
    memory: int
    memory_bandwidth: float
    peak_flops: float
    link_bandwidth: float


CHIPS = (
    Chip(
        name="v4",
        device_kind="TPU v4",
        memory=32 * _GIB,
        memory_bandwidth=1200e9,
        peak_flops=275e12,
        link_bandwidth=600e9,
    ),
    Chip(
        name="v5e",
        device_kind="TPU v5 lite",
        memory=16 * _GIB,
        memory_bandwidth=819e9,
        peak_flops=197e12,
        link_bandwidth=400e9,
    ),
    Chip(
        name="v5p",
        device_kind="TPU v5",
        memory=95 * _GIB,
        memory_bandwidth=2765e9,
        peak_flops=459e12,
        link_bandwidth=1200e9,
    ),
    Chip(
        name="v6e",
        device_kind="TPU v6 lite",
        memory=32 * _GIB,
        memory_bandwidth=1638e9,
        peak_flops=918e12,
        link_bandwidth=800e9,
    ),
    Chip(
        name="tpu7x",
        device_kind="TPU7x",
        devices=2,
        memory=192 * _GIB,
        memory_bandwidth=7380e9,
        peak_flops=2307e12,
        link_bandwidth=1200e9,
    ),
)


def peak_flops(device_kind: str) -> float | None:
    """Operations per second of one jax device, in bfloat16; None for a kind that is not known."""
    kind = {"TPU v5p": "TPU v5"}.get(device_kind, device_kind)
    return next((chip.peak_flops / chip.devices for chip in CHIPS if chip.device_kind == kind), None)
