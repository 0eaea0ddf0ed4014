"""Slices by name, and the lower bound on step time."""

import pytest

from block_recurrent.aot.collectives import Traffic
from block_recurrent.aot.roofline import estimate_step
from block_recurrent.aot.topology import Topology
from block_recurrent.errors import InputError
from block_recurrent.parallel.chips import CHIPS, peak_flops


def test_a_slice_is_parsed_from_its_name():
    topology = Topology.parse("v4:2x2x4")
    assert (topology.chip.name, topology.num_chips) == ("v4", 16)
    assert Topology.parse("v5e:4x8").num_chips == 32
    for name in ("v4", "v4:", "v9:2x2", "v4:2x2x4x4", "v4:2", "v5e:4xb"):
        with pytest.raises(InputError, match=rf"--topology {name}: must be CHIP:AxB .* v4, v5e, v5p, v6e, tpu7x"):
            Topology.parse(name)


def test_the_peak_flops_of_a_chip_are_divided_among_its_devices():
    assert peak_flops("TPU v4") == 275e12
    assert peak_flops("TPU7x") == 2307e12 / 2
    assert peak_flops("cpu") is None


def test_the_estimate_equals_a_hand_calculation():
    v4 = CHIPS[0]
    traffic = {"all-reduce": Traffic(1, 300_000_000), "all-gather": Traffic(2, 300_000_000)}
    one = estimate_step(v4, flops=275e12, hbm_bytes=600e9, traffic=traffic, num_chips=16)
    assert (one.compute, one.memory) == (1.0, 0.5)
    assert one.communication == pytest.approx(900e6 / 300e9)
    assert one.seconds == pytest.approx(1.003)
    assert one.utilisation == pytest.approx(1 / 1.003)
    assert estimate_step(v4, flops=1, hbm_bytes=1, traffic=traffic, num_chips=1).communication == 0
