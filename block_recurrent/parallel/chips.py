"""Published figures of TPU chips (docs.cloud.google.com/tpu/docs/system-architecture)."""

import dataclasses

_GIB = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One generation of TPU; the figures are those of one chip.

    Attributes:
        name: Cloud TPU's name.
        device_kind: jax's name of its devices.
        devices: number of jax devices of a chip.
        memory: bytes of HBM.
        memory_bandwidth: bytes per second between HBM and the cores.
        peak_flops: floating-point operations per second in bfloat16.
        link_bandwidth: bytes per second to the neighbours over all links, both directions together.
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
    """Returns the floating-point operations per second of one jax device, in bfloat16; None for an unknown kind."""
    kind = {"TPU v5p": "TPU v5"}.get(device_kind, device_kind)
    return next((chip.peak_flops / chip.devices for chip in CHIPS if chip.device_kind == kind), None)
