"""The jitted functions of generation."""

import functools
from typing import NamedTuple

import jax

from block_recurrent.generation import decode_state
from block_recurrent.generation.prefill import prefill
from block_recurrent.generation.sampling_loop import sample_tokens
from block_recurrent.parallel.compiler_options import compiler_options


class Programs(NamedTuple):
    """Jitted `decode_state.init`, `prefill` and `sample_tokens`."""

    init: jax.stages.Wrapped
    prefill: jax.stages.Wrapped
    sample_tokens: jax.stages.Wrapped


@functools.cache
def programs() -> Programs:
    """Returns the functions for the default platform. This starts JAX, which an import must not do."""
    options = compiler_options(jax.default_backend(), forward_only=True)
    return Programs(
        init=jax.jit(decode_state.init, static_argnums=(0, 2), static_argnames="segment_length"),
        prefill=jax.jit(prefill, static_argnums=0, compiler_options=options),
        sample_tokens=jax.jit(sample_tokens, static_argnums=(0, 1, 2, 3), compiler_options=options),
    )
