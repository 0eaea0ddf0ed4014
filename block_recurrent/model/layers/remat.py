"""Rematerialisation: what the backward pass computes again instead of storing it, and the order of its work."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from block_recurrent.config import ModelConfig
from block_recurrent.trees import is_kernel


def apply_remat_policy(config: ModelConfig, function: Callable[..., Any]) -> Callable[..., Any]:
    """Applies the rematerialisation policy `ModelConfig.remat` to a function."""
    if config.remat == "none":
        return function
    policies = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}
    return jax.checkpoint(function, policy=policies[config.remat])


def _saves_memory(config: ModelConfig) -> bool:
    """Returns whether the backward pass trades time for memory.

    With block feedback it does not: the layers run in a loop over blocks, and XLA must be free to move work on
    parameters out of it; otherwise that step takes more memory and more traffic.
    """
    return config.remat != "none" and not config.feedback


def in_backward_order(config: ModelConfig, layers: list[Any], x: Any) -> tuple[list[Any], Any]:
    """With rematerialisation, makes the backward pass finish the gradients of some layers before it goes on.

    The result is that of the arguments. Without it, XLA may postpone the products that compute the gradients of
    kernels, and their operands stay in memory together with those of the layers before.

    Args:
        config: the model configuration.
        layers: modules that run one after another.
        x: the activations that the first one reads.
    """
    if not _saves_memory(config):
        return layers, x
    graphs, params = zip(*map(nnx.split, layers), strict=True)
    params, x = jax.lax.optimization_barrier((params, x))
    return [nnx.merge(*parts) for parts in zip(graphs, params, strict=True)], x


def scan_stacked(
    config: ModelConfig, step: Callable[..., Any], shared: Any, carry: Any, inputs: list[Any]
) -> tuple[Any, Any]:
    """Computes `jax.lax.scan` over equal trees, such as the parameters of equal layers.

    Kernels of transformer layers are stacked in the dtype of the activations, in which the layers use them. With
    rematerialisation, the backward pass stacks the trees again, so that between the passes their stack takes no memory.

    Args:
        config: the model configuration.
        step: of `shared`, the carry and one of the inputs; returns the next carry and a result.
        shared: what all steps read.
        carry: the carry of the first step.
        inputs: the trees.
    """
    scan: Any = _scan_and_stack_again if _saves_memory(config) else _scan
    # An LSTM uses its kernels once for each token, and adds their gradients in the dtype of the stack.
    dtype = jnp.dtype(config.dtype if config.layer == "transformer" else "float32")
    return scan(step, dtype, shared, carry, inputs)


def _scan(step: Callable[..., Any], dtype: Any, shared: Any, carry: Any, inputs: list[Any]) -> tuple[Any, Any]:
    return jax.lax.scan(functools.partial(step, shared), carry, _stack(dtype, inputs))


_scan_and_stack_again = jax.custom_vjp(_scan, nondiff_argnums=(0, 1))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Stacked:
    """Stands for a stacked array among the intermediate results that the backward pass reads."""

    index: int


def _scan_forward(step: Callable[..., Any], dtype: Any, shared: Any, carry: Any, inputs: list[Any]) -> tuple[Any, Any]:
    stacked = _stack(dtype, inputs)
    results, backward = jax.vjp(
        lambda shared, carry, stacked: jax.lax.scan(functools.partial(step, shared), carry, stacked),
        *(shared, carry, stacked),
    )
    places = {id(leaf): _Stacked(index) for index, leaf in enumerate(jax.tree.leaves(stacked))}
    return results, (jax.tree.map(lambda leaf: places.get(id(leaf), leaf), backward), inputs)


def _scan_backward(
    step: Callable[..., Any], dtype: Any, kept: tuple[Any, list[Any]], cotangents: Any
) -> tuple[Any, Any, Any]:
    backward, inputs = kept
    carry, results = cotangents
    inputs, carry = jax.lax.optimization_barrier((inputs, carry))  # else XLA keeps the first stack
    stacked, unstack = jax.vjp(functools.partial(_stack, dtype), inputs)
    leaves = jax.tree.leaves(stacked)
    backward = jax.tree.map(
        lambda leaf: leaves[leaf.index] if isinstance(leaf, _Stacked) else leaf,
        backward,
        is_leaf=lambda leaf: isinstance(leaf, _Stacked),
    )
    shared, carry, stacked = backward((carry, results))
    return shared, carry, *unstack(stacked)


_scan_and_stack_again.defvjp(_scan_forward, _scan_backward)


def _stack(dtype: Any, trees: list[Any]) -> Any:
    def stack(path: Any, *leaves: Any) -> jax.Array:
        return jnp.stack([leaf.astype(dtype) for leaf in leaves] if is_kernel(path) else leaves)

    return jax.tree_util.tree_map_with_path(stack, *trees)
