"""Gradients of each device's own rows, added between devices once per step."""

from collections.abc import Callable, Set
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from block_recurrent.parallel.sharding import row_sharding, row_shards, shardings
from block_recurrent.trees import is_kernel, leaf_name
from block_recurrent.typing import Params

# Of parameters, rows and further arguments; returns the gradients of a sum over rows, and a tree of results per row.
Gradients: TypeAlias = Callable[..., tuple[Params, Any]]


def rows_alone_are_divided(mesh: Mesh, params: Any) -> bool:
    """Returns whether several devices divide the rows of a batch, and nothing else.

    Args:
        mesh: from `make_mesh`.
        params: parameters or their shapes.
    """
    replicated = all(sharding.is_fully_replicated for sharding in jax.tree.leaves(shardings(mesh, params)))
    return replicated and mesh.size == row_shards(mesh) > 1


def add_once(mesh: Mesh, dtype: Any, looped: Set[str], gradients_of: Gradients) -> Gradients:
    """Computes gradients on each device for its own rows, and adds them between the devices once.

    Left to itself, XLA adds a gradient where it is computed: with block feedback in every block, the relative position
    bias before its sum over the buckets, and the embedding table once as input and once as output.

    Args:
        mesh: from `make_mesh`, with divided rows alone.
        dtype: dtype of the activations, in which kernels' gradients are exchanged: that of the products that compute
            them. Other gradients are exchanged in their own.
        looped: names of the layers to whose kernels `gradients_of` applies `added_in_loops`.
        gradients_of: computes the gradients of some rows.

    Returns:
        A function with the arguments of `gradients_of`: parameters, rows, and arguments that all devices share. A
        scalar result becomes one element per device.
    """
    rows = row_sharding(mesh).spec

    def exchange(path: Any, gradient: jax.Array) -> jax.Array:
        if is_kernel(path) and not looped.isdisjoint(leaf_name(path).split("/")):
            return gradient.astype(dtype)  # the exact sum, computed in the loop
        return _sum(path, gradient, axes=rows[0], dtype=dtype)

    def local(params: Params, own_rows: Any, *shared: Any) -> tuple[Params, Any]:
        gradients, results = gradients_of(params, own_rows, *shared)
        # The barrier separates them from their use: else the optimizer has code of its own for each layer of a loop,
        # which reads the layer's place in the loop's result.
        exchanged = jax.lax.optimization_barrier(jax.tree_util.tree_map_with_path(exchange, gradients))
        gradients = jax.tree.map(lambda total, one: total.astype(one.dtype), exchanged, gradients)
        return gradients, jax.tree.map(jnp.atleast_1d, results)

    def divided(params: Params, own_rows: Any, *shared: Any) -> tuple[Params, Any]:
        whole = PartitionSpec()
        in_specs = (whole, rows, *(whole for _ in shared))
        return jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=(whole, rows), check_vma=False)(
            params, own_rows, *shared
        )

    return divided


def added_in_loops(mesh: Mesh, dtype: Any) -> Callable[[Any], Any]:
    """Returns the identity of a layer's parameters that adds the gradients of their kernels between the devices.

    A loop over layers that applies it in each step has the code of one exchange instead of one for each layer: less
    code, and less time and memory to compile it.

    Args:
        mesh: from `make_mesh`; the function works in a `gradients_of` of `add_once`.
        dtype: as in `add_once`.
    """

    def exchange(path: Any, gradient: jax.Array) -> jax.Array:
        return _sum(path, gradient, axes=axes, dtype=dtype).astype(gradient.dtype) if is_kernel(path) else gradient

    axes = row_sharding(mesh).spec[0]
    identity = jax.custom_vjp(lambda params: params)
    identity.defvjp(
        lambda params: (params, None), lambda _, gradients: (jax.tree_util.tree_map_with_path(exchange, gradients),)
    )
    return identity


def _sum(path: Any, gradient: jax.Array, *, axes: Any, dtype: Any) -> jax.Array:
    """Returns the sum over the devices; that of a kernel's gradients in `dtype`."""
    return jax.lax.psum(gradient.astype(dtype) if is_kernel(path) else gradient, axes)
