"""Slices by name, and the figures of their chips."""

import pytest

from block_recurrent.aot.topology import Topology
from block_recurrent.errors import InputError
from block_recurrent.parallel.chips import peak_flops


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
