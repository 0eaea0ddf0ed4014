"""The jitted functions of generation."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from block_recurrent.config import ModelConfig
from block_recurrent.generation import decode_state
from block_recurrent.generation.decode_state import DecodeState
from block_recurrent.generation.prefill import prefill
from block_recurrent.generation.sampling_loop import sample_tokens
from block_recurrent.parallel.compiler_options import compiler_options
from block_recurrent.parallel.placement import Placement
from block_recurrent.typing import Params


class Programs(NamedTuple):
    """Jitted `decode_state.init` and `.take_rows`, `prefill` and `sample_tokens`."""

    init: jax.stages.Wrapped
    take_rows: jax.stages.Wrapped
    prefill: jax.stages.Wrapped
    sample_tokens: jax.stages.Wrapped


@functools.cache
def programs(placement: Placement | None = None) -> Programs:
    """Returns the functions for the default platform. This starts JAX, which an import must not do.

    Args:
        placement: gathers divided parameters for prefill, which processes many tokens; a decode step uses them where
            they are.
    """

    def prefill_gathered(config: ModelConfig, params: Params, *arguments: Any) -> DecodeState:
        assert placement is not None
        return prefill(config, placement.gather(params), *arguments)

    options = compiler_options(jax.default_backend(), forward_only=True)
    return Programs(
        init=jax.jit(decode_state.init, static_argnums=(0, 2), static_argnames="segment_length"),
        take_rows=jax.jit(decode_state.take_rows, compiler_options=options),
        prefill=jax.jit(prefill if placement is None else prefill_gathered, static_argnums=0, compiler_options=options),
        sample_tokens=jax.jit(sample_tokens, static_argnums=(0, 1, 2, 3), compiler_options=options),
    )


def take_rows(state: DecodeState, rows: Sequence[int]) -> DecodeState:
    """Calls `decode_state.take_rows` as one program; operation by operation it takes 10 ms for a model of 4 layers."""
    return programs().take_rows(state, np.array(rows))
