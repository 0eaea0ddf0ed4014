"""An estimate of step time from the compiled program and the chip's published figures, and its assumptions."""

import dataclasses
from collections.abc import Mapping, Sequence

from block_recurrent.aot.collectives import Traffic
from block_recurrent.aot.work import Work, total_flops, total_hbm_bytes
from block_recurrent.parallel.chips import Chip

ASSUMPTIONS = (
    "The estimate counts every instruction of the compiled program as often as its loops execute it.",
    "Arithmetic: matrix products, recomputed ones included, at the bfloat16 peak. Element-wise arithmetic, partly "
    "filled matrix units and the time to start an instruction are left out.",
    "Memory: each instruction reads its operands from HBM once and writes its results once, or only the slice that it "
    "uses. A fusion is one instruction. Arrays in VMEM or CMEM are free.",
    "A Pallas kernel moves each block as often as its grid fetches it (each array once if its program does not tell). "
    "Its FLOPs are those that it declares (`cost_estimate`).",
    "Collectives: the full bandwidth of all links, an all-reduce counted twice.",
    "Overlap: instructions follow one another, and each takes the longer of its arithmetic and its memory time. "
    "Asynchronous copies between HBM and VMEM overlap with everything, up to the full HBM bandwidth; collectives "
    "overlap with nothing.",
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimated time of one step, in seconds on one chip.

    Attributes:
        compute: matrix products at the chip's peak.
        memory: traffic between HBM and cores at the full bandwidth.
        communication: collectives at the full bandwidth of all links.
        model_compute: model FLOPs at the chip's peak; None in older entries, whose `compute` it is.
        instructions: sum over all synchronous instructions of the longer of arithmetic and memory; None in older
            entries, whose `memory` leaves out most of the traffic.
    """

    compute: float
    memory: float
    communication: float
    model_compute: float | None = None
    instructions: float | None = None

    @property
    def seconds(self) -> float:
        """Time of the step."""
        return max(self.compute, self.memory, self.instructions or 0.0) + self.communication

    @property
    def bound(self) -> str:
        """Name of the longest of the three times."""
        times = {"arithmetic": self.compute, "memory": self.memory, "collectives": self.communication}
        return max(times, key=lambda name: times[name])

    @property
    def utilisation(self) -> float:
        """Model FLOPs utilisation, a share of the peak."""
        return (self.compute if self.model_compute is None else self.model_compute) / self.seconds


def estimate_step(
    chip: Chip, *, model_flops: float, work: Sequence[Work], traffic: Mapping[str, Traffic], num_chips: int
) -> Estimate:
    """Estimates the time of one step.

    Args:
        chip: published figures.
        model_flops: FLOPs of the step on one chip, counted analytically.
        work: instructions of one device's program.
        traffic: collectives of one device.
        num_chips: chips of the slice; a single chip does not communicate.
    """
    flops, bandwidth = chip.peak_flops / chip.devices, chip.memory_bandwidth / chip.devices
    factors = {"all-reduce": 2.0}
    sent = sum(factors.get(kind, 1.0) * one.bytes for kind, one in traffic.items()) if num_chips > 1 else 0.0
    one_way = chip.link_bandwidth / 2
    return Estimate(
        compute=total_flops(work) / flops,
        memory=total_hbm_bytes(work) / bandwidth,
        communication=sent * chip.devices / one_way,
        model_compute=model_flops / chip.peak_flops,
        instructions=sum(
            one.times * max(one.flops / flops, one.hbm_bytes / bandwidth) for one in work if not one.asynchronous
        ),
    )
