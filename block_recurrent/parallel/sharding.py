"""Sharding of arrays over devices: the mesh, and one ordered list of rules.

| axis     | divides                                                                                |
|----------|----------------------------------------------------------------------------------------|
| `data`   | rows of the batch and of the model state                                               |
| `fsdp`   | the same rows, and parameters and optimizer state, which are gathered before use       |
| `tensor` | heads and hidden features: kernels by output or input, caches and memories by head     |
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from block_recurrent.config import MeshConfig
from block_recurrent.config.training import HEAD_AXIS, ROW_AXES
from block_recurrent.errors import InputError
from block_recurrent.trees import leaf_name

_AXES = (*ROW_AXES, HEAD_AXIS)
_ROWS = ROW_AXES
# The first rule that matches a leaf's path and rank applies. Optimizer state has the parameters' paths; its factored
# moments have another rank and match the last rule.
_RULES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    (r"(^|/)embedding$", ("tensor", "fsdp")),
    (r"(keys|values|queries|hidden)/kernel$", ("fsdp", "tensor")),
    (r"(output|projection|gate)/kernel$", ("tensor", "fsdp")),
    (r"dense_[ih]/kernel$", ("fsdp", None)),  # Flax's LSTM cell: one kernel for four gates
    (r"(initial_state|position_embeddings)$", (None, "fsdp")),
    (r"(^|/)(keys|values)$", (_ROWS, None, "tensor", None)),
    (r"(^|/)memory_(keys|values)$", (_ROWS, "tensor", None, None)),
    (r"(^|/)memory_index$", (_ROWS,)),
    (r"(^|/)recurrent$", (_ROWS, None, None)),
    (r"(^|/)(tokens|targets|weights)$", (_ROWS, None)),
    (r"(^|/)start_of_document$", (_ROWS,)),
    (r"(^|/)(tokens|targets|weights)$", (_ROWS, None, None)),  # several segments of each row
    (r"(^|/)start_of_document$", (_ROWS, None)),
    (r"", ()),
)


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh with the axes `data`, `fsdp` and `tensor`.

    Args:
        config: sizes of the axes.
        devices: the devices; None means all devices of all processes.

    Raises:
        InputError: the sizes do not fit the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(config, len(devices))
    used = devices[: math.prod(shape.values())]
    return jax.make_mesh(tuple(shape.values()), tuple(shape), axis_types=(AxisType.Auto,) * 3, devices=used)


def mesh_shape(config: MeshConfig, num_devices: int) -> dict[str, int]:
    """Returns the sizes of the axes for a number of devices.

    Raises:
        InputError: the sizes do not fit the number of devices.
    """
    inner = config.fsdp * config.tensor
    data = num_devices // inner if config.data is None else config.data
    count = data * inner
    # With several processes every device must be used; a single process with a set `data` may leave devices idle.
    idle = config.data is not None and count < num_devices and jax.process_count() == 1
    if not count or (count != num_devices and not idle):
        raise InputError(
            f"MeshConfig: data = {config.data}, fsdp = {config.fsdp}, tensor = {config.tensor}: must multiply to the "
            f"{num_devices} device(s) that are there (data = None takes the devices that the other axes leave)"
        )
    return dict(zip(_AXES, (data, config.fsdp, config.tensor), strict=True))


def check_rows(mesh: Mesh | AbstractMesh, batch_size: int, accumulate_steps: int = 1) -> None:
    """Checks that the mesh and the micro-batches divide a batch.

    Raises:
        InputError: they do not.
    """
    unit = row_shards(mesh) * accumulate_steps
    if batch_size % unit:
        micro = f" times TrainConfig.accumulate_steps = {accumulate_steps}" if accumulate_steps > 1 else ""
        raise InputError(
            f"DataConfig.batch_size = {batch_size}: must be a multiple of {unit}: data {mesh.shape['data']} x fsdp "
            f"{mesh.shape['fsdp']} of the mesh{micro}"
        )


def row_shards(mesh: Mesh | AbstractMesh) -> int:
    """Returns the number of parts into which the rows of a batch are divided."""
    return math.prod(mesh.shape[axis] for axis in _ROWS)


def shardings(mesh: Mesh | AbstractMesh, tree: Any) -> Any:
    """Returns a `NamedSharding` for each leaf by the rules; a dimension that an axis does not divide stays whole.

    Args:
        mesh: from `make_mesh`.
        tree: parameters, optimizer state, `ModelState`, `TrainState` or `SegmentBatch`; arrays or their shapes.
    """

    def place(path: Any, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _spec(mesh, leaf_name(path), leaf.shape))

    return jax.tree_util.tree_map_with_path(place, tree)


def with_shardings(mesh: Mesh | AbstractMesh, tree: Any) -> Any:
    """Returns the shapes and dtypes of a tree's leaves with the sharding of each by the rules."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings(mesh, tree),
    )


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays with the rows of a batch as their first axis."""
    return NamedSharding(mesh, PartitionSpec(_ROWS))


def gather(mesh: Mesh, params: Any) -> Any:
    """Gathers parameters along `fsdp` for the forward pass, inside `jax.jit`; their gradients are sharded again.

    Without this constraint XLA shards activations by features and reshards them at every layer.
    """

    def constrain(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
        spec = PartitionSpec(*(None if axis == "fsdp" else axis for axis in sharding.spec))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(constrain, params, shardings(mesh, params))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(mesh: Mesh, batch_size: int) -> slice:
    """Returns the rows of a batch that this process reads."""
    rows = NamedSharding(mesh, PartitionSpec(_ROWS)).addressable_devices_indices_map((batch_size,))
    starts = [index[0].indices(batch_size) for index in rows.values() if index is not None]
    return slice(min(start for start, _, _ in starts), max(stop for _, stop, _ in starts))


def place_rows(mesh: Mesh, batch: Any, batch_size: int) -> Any:
    """Puts this process's rows of a batch on its devices and returns the batch of all processes.

    Args:
        mesh: from `make_mesh`.
        batch: a pytree of numpy arrays with the names of the rules; the first axis has the rows of `local_rows`.
        batch_size: number of rows of all processes.
    """
    first = local_rows(mesh, batch_size).start

    def place(path: Any, local: np.ndarray) -> jax.Array:
        shape = (batch_size, *local.shape[1:])
        spec = _spec(mesh, leaf_name(path), shape)

        def read(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(batch_size)
            return local[(slice(start - first, stop - first), *index[1:])]

        return jax.make_array_from_callback(shape, NamedSharding(mesh, spec), read)

    return jax.tree_util.tree_map_with_path(place, batch)


def _spec(mesh: Mesh | AbstractMesh, path: str, shape: tuple[int, ...]) -> PartitionSpec:
    for expression, axes in _RULES:
        if re.search(expression, path) and len(axes) in (len(shape), 0):
            return PartitionSpec(*(_if_divides(mesh, axis, size) for axis, size in zip(axes, shape, strict=False)))
    raise AssertionError("the last rule matches every leaf")


def _if_divides(mesh: Mesh | AbstractMesh, axes: Any, size: int) -> Any:
    parts = math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes or ()))
    return axes if parts > 1 and size % parts == 0 else None
