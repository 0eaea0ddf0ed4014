"""A lower bound on step time from the chip's published figures, and its assumptions."""

import dataclasses
from collections.abc import Mapping

from block_recurrent.aot.collectives import Traffic
from block_recurrent.parallel.chips import Chip

ASSUMPTIONS = (
    "The estimate is a lower bound: the longer of compute time and memory time, plus communication time. Compute time: "
    "model FLOPs at the bfloat16 peak. Memory time: every argument is read once, every result is written once and "
    "every temporary byte is written and read once at the full HBM bandwidth; decoding reads the parameters, in the "
    "activations' dtype, once for each token of a row. Communication time: collectives at the full bandwidth of all "
    "links, an all-reduce counted twice, without overlap. Real steps are slower: the estimate ignores the low "
    "efficiency of small matrix products, recomputation and element-wise operations."
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Lower bound on the time of one step, in seconds on one chip.

    Attributes:
        compute: model FLOPs at the chip's peak.
        memory: traffic between HBM and cores at the full bandwidth.
        communication: collectives at the full bandwidth of all links.
    """

    compute: float
    memory: float
    communication: float

    @property
    def seconds(self) -> float:
        """Time of the step."""
        return max(self.compute, self.memory) + self.communication

    @property
    def utilisation(self) -> float:
        """Upper bound on the model FLOPs utilisation, a share of the peak."""
        return self.compute / self.seconds


def estimate_step(
    chip: Chip, *, flops: float, hbm_bytes: float, traffic: Mapping[str, Traffic], num_chips: int
) -> Estimate:
    """Returns a lower bound on the time of one step.

    Args:
        chip: published figures.
        flops: FLOPs of the step on one chip, counted analytically.
        hbm_bytes: bytes read from and written to HBM on one chip.
        traffic: collectives of one device.
        num_chips: chips of the slice; a single chip does not communicate.
    """
    factors = {"all-reduce": 2.0}
    sent = sum(factors.get(kind, 1.0) * one.bytes for kind, one in traffic.items()) if num_chips > 1 else 0.0
    one_way = chip.link_bandwidth / 2
    return Estimate(flops / chip.peak_flops, hbm_bytes / chip.memory_bandwidth, sent * chip.devices / one_way)
