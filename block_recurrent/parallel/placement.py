"""Placement of a model and of the rows of its batches on the devices of all processes, for scoring and generation."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from block_recurrent.config import MeshConfig
from block_recurrent.parallel.sharding import (
    gather,
    local_rows,
    make_mesh,
    replicated,
    row_sharding,
    shardings,
    with_shardings,
)
from block_recurrent.typing import Params


class Placement:
    """Rows are divided among all devices; parameters are replicated, or divided among groups of `fsdp` devices.

    All processes must make the same calls in the same order.

    Args:
        devices: the devices; None means all devices of all processes.
        fsdp: number of devices that share the parameters, for models that do not fit one device.

    Raises:
        InputError: `fsdp` does not divide the number of devices.
    """

    def __init__(self, devices: Sequence[Any] | None = None, *, fsdp: int = 1):
        self._mesh = make_mesh(MeshConfig(fsdp=fsdp), devices)
        self.fsdp = fsdp
        self.rows, self.replicated = row_sharding(self._mesh), replicated(self._mesh)

    def padded(self, rows: int) -> int:
        """Returns a number of rows, rounded up to a multiple of the devices."""
        return -(-rows // self.rows.num_devices) * self.rows.num_devices

    def local_rows(self, rows: int) -> slice:
        """Returns the rows, of this number without padding, that this process reads; it may have none."""
        own = local_rows(self._mesh, self.padded(rows))
        return slice(min(own.start, rows), min(own.stop, rows))

    def put(self, tree: Any, rows: int) -> Any:
        """Puts this process's rows on its devices, with rows of zeros as padding.

        Args:
            tree: host arrays with the rows of `local_rows` as first axis.
            rows: number of rows of all processes, without padding.

        Returns:
            Arrays with `padded(rows)` rows.
        """
        total = self.padded(rows)
        own = local_rows(self._mesh, total)

        def put(x: np.ndarray) -> jax.Array:
            added = own.stop - own.start - len(x)
            local = np.pad(x, [(0, added)] + [(0, 0)] * (x.ndim - 1))
            return jax.make_array_from_process_local_data(self.rows, local, (total, *x.shape[1:]))

        return jax.tree.map(put, tree)

    def spread(self, tree: Any) -> Any:
        """Divides rows among the devices, if these divide their number; otherwise every device has all rows.

        Args:
            tree: arrays with all rows as first axis, of all processes or equal in all of them.
        """
        return jax.tree.map(lambda x: _put(x, self._rows_if_divisible(x)), tree)

    def _rows_if_divisible(self, x: Any) -> jax.sharding.NamedSharding:
        return self.rows if np.ndim(x) and len(x) % self.rows.num_devices == 0 else self.replicated

    def put_params(self, params: Params) -> Params:
        """Puts parameters on the devices.

        Args:
            params: host arrays, arrays on this process's devices, or arrays that `shapes` has placed.
        """
        return jax.tree.map(_put, params, shardings(self._mesh, params))

    def shapes(self, tree: Any) -> Any:
        """Returns shapes and dtypes of a tree's leaves with their shardings, to read a checkpoint onto the devices."""
        return with_shardings(self._mesh, tree)

    def init(self, initialise: Callable[[Params, int], Any], params: Params, rows: int) -> Any:
        """Returns a state of `padded(rows)` rows, on the devices.

        Args:
            initialise: (parameters, rows) -> state, a pytree of arrays with a leading axis of rows.
            params: parameters, from `put_params`.
            rows: number of rows of all processes, without padding.
        """
        return _init(initialise, self.padded(rows), self.rows)(params)

    def gathering(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a jitted step that gathers divided parameters, its first argument, before their use."""
        return step if self.fsdp == 1 else _gathering(step, self._mesh)

    def gather(self, params: Params) -> Params:
        """Gathers divided parameters before their use, inside `jax.jit`; see `sharding.gather`."""
        return params if self.fsdp == 1 else gather(self._mesh, params)

    def to_every_process(self, x: jax.Array) -> jax.Array:
        """Starts to copy an array to every process, if there are several; `to_host` then waits for it."""
        return x if x.is_fully_addressable else _copy(self.replicated)(x)

    def from_first_process(self, tree: Any) -> Any:
        """Divides the rows of host arrays that the first process has; the others pass arrays of the same shapes."""
        if jax.process_count() > 1:
            tree = multihost_utils.broadcast_one_to_all(tree)
        return jax.tree.map(lambda x: _put(np.asarray(x), self.rows), tree)


def to_host(x: Any) -> np.ndarray:
    """Returns the whole array as numpy; if it is spread over several processes, all of them must call this."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def _put(x: Any, sharding: jax.sharding.NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return x if x.sharding == sharding else _copy(sharding)(x)
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


@functools.lru_cache(maxsize=64)
def _gathering(step: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    return jax.jit(lambda params, *arguments: step(gather(mesh, params), *arguments))


@functools.lru_cache(maxsize=64)
def _init(
    initialise: Callable[[Params, int], Any], rows: int, sharding: jax.sharding.NamedSharding
) -> Callable[[Params], Any]:
    return jax.jit(lambda params: initialise(params, rows), out_shardings=sharding)


@functools.lru_cache(maxsize=8)
def _copy(sharding: jax.sharding.NamedSharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda x: x, out_shardings=sharding)
