"""The estimate of step time equals a calculation by hand."""

import pytest

from block_recurrent.aot.collectives import Traffic
from block_recurrent.aot.roofline import Estimate, estimate_step
from block_recurrent.aot.work import Work
from block_recurrent.parallel.chips import CHIPS

V4 = CHIPS[0]
TRAFFIC = {"all-reduce": Traffic(1, 300_000_000), "all-gather": Traffic(2, 300_000_000)}


def estimate(*work: Work, num_chips: int = 16, model_flops: float = 275e12) -> Estimate:
    return estimate_step(V4, model_flops=model_flops, work=work, traffic=TRAFFIC, num_chips=num_chips)


def test_an_instruction_takes_the_longer_of_arithmetic_and_memory_and_instructions_add_up():
    one = estimate(Work(600e9, 275e12), Work(120e9, 27.5e12, times=10))
    assert (one.compute, one.memory) == (2.0, pytest.approx(1.5))
    assert one.communication == pytest.approx(900e6 / 300e9)
    assert one.seconds == pytest.approx(1 + 10 * 0.1 + 0.003)
    apart = estimate(Work(1200e9, 0), Work(0, 275e12))
    assert (apart.compute, apart.memory, apart.instructions) == (1.0, 1.0, 2.0)
    assert apart.utilisation == pytest.approx(1 / 2.003)


def test_transfers_overlap_up_to_the_bandwidth():
    hidden = estimate(Work(0, 275e12), Work(600e9, 0, asynchronous=True))
    assert hidden.seconds == pytest.approx(1.003)
    late = estimate(Work(0, 275e12), Work(2400e9, 0, asynchronous=True))
    assert (late.seconds, late.bound) == (pytest.approx(2.003), "memory")


def test_a_single_chip_does_not_communicate():
    assert estimate(Work(1, 1), num_chips=1).communication == 0


def test_the_longest_time_binds():
    assert estimate(Work(1, 275e12)).bound == "arithmetic"
    assert estimate(Work(1200e9, 275e9)).bound == "memory"
    assert estimate(Work(1, 1)).bound == "collectives"


def test_a_chip_of_two_devices_halves_the_work_of_each():
    chip = CHIPS[-1]
    one = estimate_step(
        chip, model_flops=1, work=[Work(chip.memory_bandwidth, chip.peak_flops)], traffic={}, num_chips=1
    )
    assert (one.compute, one.memory, one.instructions) == (2.0, 2.0, 2.0)
