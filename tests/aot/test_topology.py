import pytest

from block_recurrent.aot.collectives import Traffic
from block_recurrent.aot.roofline import estimate
from block_recurrent.aot.topology import Topology
from block_recurrent.errors import InputError
from block_recurrent.parallel.chips import CHIPS, peak_flops


def test_names_of_slices():
    topology = Topology.parse("v4:2x2x4")
    assert (topology.chip.name, topology.num_chips) == ("v4", 16)
    assert Topology.parse("v5e:4x8").num_chips == 32
    for name in ("v4", "v4:", "v9:2x2", "v4:2x2x4x4", "v4:2", "v5e:4xb"):
        with pytest.raises(InputError, match=rf"--topology {name}: must be CHIP:AxB .* v4, v5e, v5p, v6e, tpu7x"):
            Topology.parse(name)


def test_a_chips_peak_is_that_of_all_its_devices():
    assert peak_flops("TPU v4") == 275e12
    assert peak_flops("TPU7x") == 2307e12 / 2
    assert peak_flops("cpu") is None


def test_an_estimate_by_hand():
    v4 = CHIPS[0]
    traffic = {"all-reduce": Traffic(1, 300_000_000), "all-gather": Traffic(2, 300_000_000)}
    one = estimate(v4, flops=275e12, moved=600e9, traffic=traffic, num_chips=16)
    assert (one.compute, one.memory) == (1.0, 0.5)
    assert one.communication == pytest.approx(900e6 / 300e9)
    assert one.step == pytest.approx(1.003)
    assert one.utilisation == pytest.approx(1 / 1.003)
    assert estimate(v4, flops=1, moved=1, traffic=traffic, num_chips=1).communication == 0
