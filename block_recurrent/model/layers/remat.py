"""What the backward pass computes again instead of keeping it (`ModelConfig.remat`)."""

from collections.abc import Callable
from typing import Any

import jax

from block_recurrent.config import ModelConfig


def rematerialised(config: ModelConfig, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, of which the backward pass computes again what `ModelConfig.remat` does not keep."""
    if config.remat == "none":
        return call
    policies = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}
    return jax.checkpoint(call, policy=policies[config.remat])
