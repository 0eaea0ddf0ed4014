"""Tiles of the attention to a window: which keys a tile of queries sees, and the bias of each pair by its distance.

A tile of t queries sees W / t + 1 tiles of t keys: those that end W, W - t, ..., 0 tokens before its own end. They are
counted as steps 0 (the oldest) to W / t (the tokens of the queries). Logits are stored with the keys as rows and the
queries as columns: then every statistic of a query is an element of one row, which TPUs store without padding.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from block_recurrent.model.ops.attention import MASKED_LOGIT
from block_recurrent.model.ops.positions import t5_bucket

_PREFERRED = (256, 128)  # tokens of a tile: multiples of the 128 lanes of a TPU; larger ones do not fit its VMEM


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Division of a window into tiles.

    Attributes:
        window: W, the distance of the oldest key that a query sees.
        size: t, tokens of a tile; it divides the window.
    """

    window: int
    size: int

    @classmethod
    def of(cls, window: int) -> "Tiles":
        """Returns tiles of 256 or 128 tokens if they divide the window, else one tile."""
        return cls(window, next((size for size in _PREFERRED if window % size == 0), window))

    @property
    def previous(self) -> int:
        """Number of tiles of keys before the queries' own tile."""
        return self.window // self.size

    def distances(self, step: int) -> Int[Array, "K Q"]:
        """Returns the distance of each query from each key of tile `step`."""
        shape = (self.size, self.size)
        columns, rows = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (1, 0))
        return (self.previous - step) * self.size + columns - rows

    def range(self, step: int) -> tuple[int, int]:
        """Returns the smallest and the largest distance of tile `step`."""
        center = (self.previous - step) * self.size
        return center - self.size + 1, center + self.size - 1

    @functools.cached_property
    def kinds(self) -> tuple[int, ...]:
        """For each tile of keys, the index of its biases; tiles whose pairs are all in one bucket share an index."""
        names = [self._only_bucket(step) or f"step {step}" for step in range(self.previous + 1)]
        distinct = list(dict.fromkeys(names))
        return tuple(map(distinct.index, names))

    @functools.cached_property
    def examples(self) -> tuple[int, ...]:
        """The first tile of each kind."""
        return tuple(self.kinds.index(kind) for kind in range(max(self.kinds) + 1))

    def _only_bucket(self, step: int) -> int | None:
        """Returns the bucket of all pairs if it is the same and all are visible, else None; distance 0 is hidden."""
        low, high = self.range(step)
        (bucket, _), *others = self.buckets(step)
        return bucket if low >= 1 and high <= self.window and not others else None

    def buckets(self, step: int) -> list[tuple[int, int]]:
        """Returns the buckets of the visible pairs of tile `step`, each with its smallest distance, in order."""
        low, high = self.range(step)
        found = dict[int, int]()
        for distance in range(max(low, 1), min(high, self.window) + 1):
            found.setdefault(int(_BUCKETS[min(distance, len(_BUCKETS) - 1)]), distance)
        return list(found.items())


_BUCKETS = t5_bucket(np.arange(129))  # all larger distances have the bucket of the last one


def offsets(tiles: Tiles, step: int, bias: Any, head: Any) -> Float[Array, "K Q"]:
    """Returns what is added to the logits of a tile of keys: the bias, or a very negative number for hidden pairs.

    Args:
        tiles: the tiles.
        step: the tile of keys.
        bias: bias of each head and bucket, times |scale|; an array or a reference to one.
        head: index of the head.
    """
    distances, buckets = tiles.distances(step), tiles.buckets(step)
    result = jnp.full(distances.shape, bias[head, buckets[0][0]], jnp.float32)
    for bucket, first in buckets[1:]:
        result = jnp.where(distances >= first, bias[head, bucket], result)
    low, high = tiles.range(step)
    if low < 1 or high > tiles.window:
        result = jnp.where((distances >= 1) & (distances <= tiles.window), result, MASKED_LOGIT)
    return result


def bucket_sums(tiles: Tiles, by_kind: Any) -> dict[int, Float[Array, "1 Q"]]:
    """Sums gradients of logits by bucket of their pair, over the keys of each query.

    Args:
        tiles: the tiles.
        by_kind: (kinds, K, Q) gradients; those of hidden pairs are zero.
    """
    sums: dict[int, Any] = {}
    for kind, step in enumerate(tiles.examples):
        buckets, distances = tiles.buckets(step), tiles.distances(step)
        for index, (bucket, _) in enumerate(buckets):
            inside = _in_bucket(distances, buckets, index)
            found = by_kind[kind] if inside is None else jnp.where(inside, by_kind[kind], 0.0)
            row = jnp.sum(found, axis=0, keepdims=True)
            sums[bucket] = row if bucket not in sums else sums[bucket] + row
    return sums


def _in_bucket(distances: Int[Array, "K Q"], buckets: list[tuple[int, int]], index: int) -> Bool[Array, "K Q"] | None:
    """Returns the pairs in the bucket of this index; None for all pairs."""
    bounds = [distances >= buckets[index][1]] if index else []
    if index + 1 < len(buckets):
        bounds.append(distances < buckets[index + 1][1])
    return functools.reduce(jnp.logical_and, bounds) if bounds else None
