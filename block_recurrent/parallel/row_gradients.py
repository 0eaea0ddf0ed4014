"""Gradients of each device's own rows, added between devices once per step."""

import functools
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from block_recurrent.parallel.sharding import row_sharding, row_shards, shardings
from block_recurrent.trees import leaf_name
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


def add_once(mesh: Mesh, dtype: Any, gradients_of: Gradients) -> Gradients:
    """Computes gradients on each device for its own rows, and adds them between the devices at the end.

    Left to itself, XLA adds a gradient where it is computed: in every layer of a loop over layers, with block feedback
    in every block, the relative position bias before its sum over the buckets, and the embedding table once as input
    and once as output.

    Args:
        mesh: from `make_mesh`, with divided rows alone.
        dtype: dtype of the activations, in which kernels' gradients are exchanged: that of the products that compute
            them. Other gradients are exchanged in their own.
        gradients_of: computes the gradients of some rows.

    Returns:
        A function with the arguments of `gradients_of`: parameters, rows, and arguments that all devices share. A
        scalar result becomes one element per device.
    """
    rows = row_sharding(mesh).spec

    def local(params: Params, own_rows: Any, *shared: Any) -> tuple[Params, Any]:
        gradients, results = gradients_of(params, own_rows, *shared)
        add = functools.partial(_add, axes=rows[0], dtype=dtype)
        return jax.tree_util.tree_map_with_path(add, gradients), jax.tree.map(jnp.atleast_1d, results)

    def divided(params: Params, own_rows: Any, *shared: Any) -> tuple[Params, Any]:
        whole = PartitionSpec()
        in_specs = (whole, rows, *(whole for _ in shared))
        return jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=(whole, rows), check_vma=False)(
            params, own_rows, *shared
        )

    return divided


def _add(path: Any, gradient: jax.Array, *, axes: Any, dtype: Any) -> jax.Array:
    kernel = re.search(r"(^|/)kernel$", leaf_name(path))
    return jax.lax.psum(gradient.astype(dtype) if kernel else gradient, axes).astype(gradient.dtype)
