"""The measurement of the attention kernels: small sizes in interpret mode, the verdict, and a machine without a TPU."""

import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from block_recurrent.model.ops.fused_attention import fused_attention
from experiments.tpu.bench_attention import SMALL, Size, largest_difference, make_inputs, programs, verdict, xla


def found(name: str, difference: float, fused: float) -> dict[str, Any]:
    times = {"xla": 0.002, "fused": fused}
    return {"size": {"name": name}, "difference": difference, "forward": times, "forward and backward": times}


@pytest.mark.slow
def test_both_kernels_compute_the_same_on_the_small_sizes():
    for size in (*SMALL, Size("half blocks", 256, 256, heads=1, dim=4)):
        arguments = make_inputs(size)
        ours, expected = (
            programs(attention)["forward and backward"](*arguments) for attention in (fused_attention, xla)
        )
        assert 0 < largest_difference(ours, expected) <= 0.03
        assert all(np.any(leaf) for leaf in jax.tree.leaves(expected))


def test_the_verdict_is_a_recommendation_only_if_every_size_is_faster():
    assert "2.00 times as fast as xla: use attention_kernel = 'fused'" in verdict([found("a", 0.001, 0.001)])
    assert "choose by the sizes" in verdict([found("a", 0.001, 0.001), found("b", 0.001, 0.003)])


def test_a_difference_is_an_error_however_fast_the_kernel_is():
    assert verdict([found("a", 0.001, 0.001), found("b", float("nan"), 0.001)]).startswith("WRONG: ")
    assert largest_difference([np.array([1.0, 2.0])], [np.array([1.0, 2.5])]) == 0.2


def test_a_machine_without_a_tpu_says_so_in_one_line():
    command = [sys.executable, "-m", "experiments.tpu.bench_attention"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == "bench_attention: no TPU here (jax uses cpu); --interpret checks equality only\n"
