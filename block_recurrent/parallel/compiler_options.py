"""Compiler options for `jax.jit`."""

import os

_OPTIONS: dict[str, dict[str, bool | int | str]] = {
    "tpu": {
        # Equal parts of a program, such as the layers of a stack, become calls of one piece of code. In the 150M models
        # that is a third less code, both in HBM and for the compiler.
        "xla_tpu_enable_deduplicated_calls": True,
        # Arrays are fetched ahead of their use as a whole instead of in slices: a twentieth less code, equal traffic.
        # With 1 they are not sliced either, but libtpu's compiler then aborts for v5p.
        "xla_tpu_sliced_prefetch_max_slices": 0,
        # Gradients that are exchanged at the same time are one collective, whatever their size.
        "xla_jf_crs_combiner_threshold_in_bytes": 1 << 30,
    },
    # Sums stay one vectorised loop instead of a tree of small windows. Adafactor and the norms of the metrics take 10
    # instead of 22 ms for 4 million parameters. Sums over a million terms keep a relative error below 1e-5.
    "cpu": {"xla_disable_hlo_passes": "tree_reduction_rewriter"},
}
_LEVEL = "xla_backend_optimization_level"


def compiler_options(platform: str, *, forward_only: bool = False) -> dict[str, bool | int | str]:
    """Returns the compiler options for a platform.

    Args:
        platform: jax's name of it.
        forward_only: the program computes no gradients. On CPU it is as fast with fewer of LLVM's optimisations, and
            compiles sooner; a train step would be slower (docs/performance.md).
    """
    options = dict(_OPTIONS.get(platform, {}))
    if forward_only and platform == "cpu" and _LEVEL not in os.environ.get("XLA_FLAGS", ""):
        options[_LEVEL] = 1
    return options
