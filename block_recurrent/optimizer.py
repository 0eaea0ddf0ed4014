"""Adafactor (Shazeer and Stern 2018) with the official code's settings and learning-rate schedules.

One leaf of the parameters is one official parameter in its official shape: Adafactor factors, clips and scales per
leaf, so fusing or splitting kernels would change its updates.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import Array

from block_recurrent.config import OptimizerConfig
from block_recurrent.named_leaves import named_leaves

LearningRate: TypeAlias = Callable[[jax.typing.ArrayLike], jax.Array]

_LAYER = re.compile(r"\blayer_\d+/")
_MIN_RSQRT_STEP = 100.0  # before this step the inverse square root is held


def make_schedule(config: OptimizerConfig, num_steps: int) -> LearningRate:
    """The learning rate as a function of the step, 0 at step 0 when there is a warm-up.

    During warm-up the schedule stands where warm-up ends, times a linear ramp (official code).

    Args:
        config: shape and bounds.
        num_steps: length of the run; the decay ends there unless `config.decay_steps` says otherwise.
    """
    decay = _decay(config, config.decay_steps or num_steps)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        ramp = jnp.minimum(step, config.warmup_steps) / config.warmup_steps if config.warmup_steps else 1.0
        return config.learning_rate * ramp * decay(jnp.maximum(step, config.warmup_steps))

    return schedule


def make_optimizer(
    config: OptimizerConfig, num_steps: int, *, stack_layers: bool = False
) -> optax.GradientTransformation:
    """Adafactor with momentum; no weight decay, no global-norm clipping.

    Args:
        config: its settings.
        num_steps: length of the run; see `make_schedule`.
        stack_layers: update the same parameter of all layers at once, a much smaller program to compile. State and
            updates are those without it.
    """
    adafactor = optax.adafactor(
        make_schedule(config, num_steps),
        decay_rate=config.decay_rate,
        momentum=config.momentum,
        multiply_by_parameter_scale=True,
    )
    return _stack_layers(adafactor) if stack_layers else adafactor


def _stack_layers(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Updates leaves that differ in their layer alone as one stacked leaf; right where leaves do not mix."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        structure = jax.tree.structure(params)

        def is_leafwise(part: Any) -> bool:
            return jax.tree.structure(part) == structure

        def stack(part: Any, group: list[int]) -> Any:
            leaves = jax.tree.leaves(part)
            return jnp.stack([leaves[index] for index in group]) if is_leafwise(part) else part

        def unstack(stacked: Sequence[Array]) -> Any:
            by_index = {i: leaf[n] for group, leaf in zip(groups, stacked, strict=True) for n, i in enumerate(group)}
            return structure.unflatten([by_index[index] for index in range(structure.num_leaves)])

        groups = _equal_but_for_layer(params)
        parts, outer = jax.tree.flatten(state, is_leaf=is_leafwise)  # trees like `params`, and counters
        axes = outer.unflatten([0 if is_leafwise(part) else None for part in parts])
        together = jax.vmap(optimizer.update, in_axes=(0, axes, 0), out_axes=(0, axes))
        results = [
            together(stack(updates, group), outer.unflatten([stack(part, group) for part in parts]), stack(params, group))
            for group in groups
        ]
        by_part = zip(*(outer.flatten_up_to(new_state) for _, new_state in results), strict=True)
        new_parts = [unstack(new) if is_leafwise(part) else new[0] for part, new in zip(parts, by_part, strict=True)]
        return unstack([new_updates for new_updates, _ in results]), outer.unflatten(new_parts)

    return optax.GradientTransformation(optimizer.init, update)


def _equal_but_for_layer(params: Any) -> list[list[int]]:
    """Indices of the leaves, grouped by shape and by name without the layer."""
    groups: dict[Any, list[int]] = {}
    for index, (name, leaf) in enumerate(named_leaves(params).items()):
        groups.setdefault((_LAYER.sub("", name), leaf.shape), []).append(index)
    return list(groups.values())


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
