"""Adafactor (Shazeer and Stern 2018) with the official code's settings and learning-rate schedules.

Each parameter leaf is one parameter of the official code in its shape: Adafactor factors, clips and scales each leaf,
so fused or split kernels would change its updates.
"""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from block_recurrent.config import OptimizerConfig
from block_recurrent.trees import leaf_name

LearningRate: TypeAlias = Callable[[jax.typing.ArrayLike], jax.Array]

_MIN_RSQRT_STEP = 100.0  # the inverse square root is constant before this step
_GATE_BIAS = re.compile(r"(^|/)gate/([^/]+/)*bias$")


def make_schedule(config: OptimizerConfig, num_steps: int) -> LearningRate:
    """Returns the learning rate as a function of the step.

    During warm-up the rate is a linear ramp from 0 times the schedule's value at the end of warm-up, as in the official
    code.

    Args:
        config: shape and bounds of the schedule.
        num_steps: length of the run; the decay ends there if `config.decay_steps` is None.
    """
    decay = _decay(config, config.decay_steps or num_steps)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        ramp = jnp.minimum(step, config.warmup_steps) / config.warmup_steps if config.warmup_steps else 1.0
        return config.learning_rate * ramp * decay(jnp.maximum(step, config.warmup_steps))

    return schedule


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """Returns Adafactor with momentum, without weight decay and without global-norm clipping.

    The tree of the optimizer state does not depend on the configuration.
    """
    adafactor = optax.adafactor(
        make_schedule(config, num_steps),
        decay_rate=config.decay_rate,
        momentum=config.momentum,
        multiply_by_parameter_scale=True,
    )
    if config.gate_rate_multiplier == 1:
        return adafactor
    return _scale_gate_biases(adafactor, config.gate_rate_multiplier)


def _scale_gate_biases(optimizer: optax.GradientTransformation, factor: float) -> optax.GradientTransformation:
    """Multiplies the learning rate of the gates' biases by a constant.

    The momentum is a linear average of updates that are proportional to the learning rate, so a constant factor after
    it is the same as one before it. The optimizer state stays that of `optimizer`.
    """

    def scale(path: Any, update: jax.Array) -> jax.Array:
        return factor * update if _GATE_BIAS.search(leaf_name(path)) else update

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(updates, state, params)
        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformation(optimizer.init, update)


def _decay(config: OptimizerConfig, total: int) -> Callable[[jax.Array], jax.Array]:
    low = config.min_rate
    high = 0.01 if config.max_rate is None else config.max_rate

    def rsqrt(step: jax.Array) -> jax.Array:
        rate = jax.lax.rsqrt(jnp.maximum(step, _MIN_RSQRT_STEP))
        return rate if config.max_rate is None else jnp.minimum(rate, config.max_rate)

    def rsqrt_to_min(step: jax.Array) -> jax.Array:
        rate = low * jnp.sqrt(total / jnp.maximum(step, _MIN_RSQRT_STEP))
        return jnp.minimum(rate, 0.05 if config.max_rate is None else config.max_rate)

    def exponential(step: jax.Array) -> jax.Array:
        return high * (low / high) ** (step / total)

    def halve_afterwards(step: jax.Array, rate: jax.Array) -> jax.Array:
        return jnp.where(step < total, rate, 2 * low * 0.5 ** (step / total))

    def linear(step: jax.Array) -> jax.Array:
        return halve_afterwards(step, low + (high - low) * (1 - step / total))

    def cosine(step: jax.Array) -> jax.Array:
        rate = low + (high - low) * (1 + jnp.cos(jnp.pi * jnp.minimum(step / total, 1))) / 2
        if config.spike_steps:
            rate = jnp.maximum(rate, config.spike_rate * (1 - step / config.spike_steps))
        return halve_afterwards(step, rate)

    def constant(step: jax.Array) -> jax.Array:
        return jnp.full_like(step, high)

    return {
        "rsqrt": rsqrt,
        "rsqrt_to_min": rsqrt_to_min,
        "exponential": exponential,
        "linear": linear,
        "cosine": cosine,
        "constant": constant,
    }[config.schedule]
