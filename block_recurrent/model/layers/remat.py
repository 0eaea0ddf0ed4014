"""Rematerialisation: intermediate results that the backward pass recomputes instead of storing them."""

from collections.abc import Callable
from typing import Any

import jax

from block_recurrent.config import ModelConfig


def apply_remat_policy(config: ModelConfig, function: Callable[..., Any]) -> Callable[..., Any]:
    """Applies the rematerialisation policy `ModelConfig.remat` to a function."""
    if config.remat == "none":
        return function
    policies = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}
    return jax.checkpoint(function, policy=policies[config.remat])
