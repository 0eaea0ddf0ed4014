"""What the backward pass computes again instead of keeping it (`ModelConfig.remat`)."""

from collections.abc import Callable
from typing import TypeVar

import jax

from block_recurrent.config import ModelConfig

F = TypeVar("F", bound=Callable)


def rematerialised(config: ModelConfig, call: F) -> F:
    """`call`, of which the backward pass computes again what `ModelConfig.remat` does not keep."""
    if config.remat == "none":
        return call
    policies = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}
    return jax.checkpoint(call, policy=policies[config.remat])
