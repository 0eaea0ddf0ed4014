"""A lower bound of a step's time from published figures, with its assumptions in words."""

import dataclasses
from collections.abc import Mapping

from block_recurrent.aot.collectives import Traffic
from block_recurrent.parallel.chips import Chip

ASSUMPTIONS = (
    "Estimate: the longer of (model FLOPs at the bfloat16 peak) and (every argument read once, every result written "
    "once, every temporary byte written and read once at the full HBM bandwidth; decoding reads the parameters, in the "
    "activations' dtype, once for each token of a row), plus collectives at the full bandwidth of all links (an "
    "all-reduce counts twice) with nothing overlapped. Real steps are slower: small matrix products, recomputation and "
    "element-wise work are not in it."
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of one step on one chip.

    Attributes:
        compute: model FLOPs at the chip's peak.
        memory: bytes that have to pass between HBM and cores, at the full bandwidth.
        communication: collectives at the full bandwidth of all links.
    """

    compute: float
    memory: float
    communication: float

    @property
    def step(self) -> float:
        """Seconds of the step."""
        return max(self.compute, self.memory) + self.communication

    @property
    def utilisation(self) -> float:
        """Share of the peak that the model's FLOPs make up, at most."""
        return self.compute / self.step


def estimate(chip: Chip, *, flops: float, moved: float, traffic: Mapping[str, Traffic], num_chips: int) -> Estimate:
    """Estimates a step.

    Args:
        chip: its published figures.
        flops: of the step on one chip, counted analytically.
        moved: bytes between HBM and cores on one chip.
        traffic: collectives of one device.
        num_chips: a single chip has nobody to talk to.
    """
    factors = {"all-reduce": 2.0}
    sent = sum(factors.get(kind, 1.0) * one.bytes for kind, one in traffic.items()) if num_chips > 1 else 0.0
    one_way = chip.link_bandwidth / 2
    return Estimate(flops / chip.peak_flops, moved / chip.memory_bandwidth, sent * chip.devices / one_way)
