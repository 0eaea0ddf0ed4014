"""Recall of the external memory's retrieval modes against exact search: `python -m experiments.studies.memory_recall`.

Keys and queries are random unit vectors, the hardest case: nothing is near anything. A mode's recall is the share of
the exact K nearest keys that it retrieves. `bucketed` is the official code's and returns the best key of each of K
buckets. `approximate` is `jax.lax.approx_max_k`, which XLA computes exactly on a CPU; only a TPU is approximate. Text
is easier than random vectors for the keys that matter: the nearest one is always found by `bucketed`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from block_recurrent.cli import console
from block_recurrent.config.model import Retrieval
from block_recurrent.files import write_whole
from block_recurrent.model.ops.attention import unit_length
from block_recurrent.model.ops.memory import Memory, retrieve

RESULT = Path("experiments/studies/results/memory_recall.json")
SIZES = (8192, 32768, 65536)
NEIGHBORS, HEAD_DIM, QUERIES = 128, 128, 64
MODES: tuple[Retrieval, ...] = ("bucketed", "approximate")
NEAREST = (1, 8, 32, 128)  # recall is also that of the nearest few


def random_memory(size: int, head_dim: int, seed: int) -> Memory:
    """Returns a full memory of one row and head. Its values are the slots' numbers, so that a retrieval names them."""
    keys = unit_length(jax.random.normal(jax.random.key(seed), (1, 1, size, head_dim)))
    values = jnp.broadcast_to(jnp.arange(size, dtype=jnp.float32)[None, None, :, None], keys.shape)
    return Memory(keys, values, jnp.array([size], jnp.int32))


def retrieved_slots(queries: jax.Array, memory: Memory, neighbors: int, mode: Retrieval) -> np.ndarray:
    """Returns the slots that each query retrieves, (Q, K).

    Where `bucketed` mixes keys of nearly equal score, the slot is the nearest integer to the mean of theirs.
    """
    found = retrieve(queries, memory, neighbors, mode)
    return np.rint(np.asarray(found.values[0, 0, :, :, 0])).astype(int)


def recall(size: int, *, neighbors: int, head_dim: int, num_queries: int, seed: int = 0) -> list[dict[str, Any]]:
    """Measures the recall of each mode.

    Args:
        size: slots of the memory, all of them written.
        neighbors: K.
        head_dim: dimension of keys and queries.
        num_queries: number of queries.
        seed: of the vectors.

    Returns:
        One entry per mode; `recall` is the share of the n nearest keys that are retrieved, by n.
    """
    memory = random_memory(size, head_dim, seed)
    queries = unit_length(jax.random.normal(jax.random.key(seed + 1), (1, num_queries, 1, head_dim)))
    exact = retrieved_slots(queries, memory, neighbors, "exact")  # the nearest first
    found = {mode: retrieved_slots(queries, memory, neighbors, mode) for mode in MODES}
    return [
        {
            "size": size,
            "mode": mode,
            "recall": {n: _share(exact[:, :n], slots) for n in sorted({*NEAREST, neighbors}) if n <= neighbors},
        }
        for mode, slots in found.items()
    ]


def _share(nearest: np.ndarray, found: np.ndarray) -> float:
    """Returns the share of `nearest` that is in the same row of `found`."""
    return float(np.mean([np.isin(row, slots).mean() for row, slots in zip(nearest, found, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    entries = [
        entry for size in SIZES for entry in recall(size, neighbors=NEIGHBORS, head_dim=HEAD_DIM, num_queries=QUERIES)
    ]
    result = {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "jax": jax.__version__,
        "queries": QUERIES,
        "neighbors": NEIGHBORS,
        "head_dim": HEAD_DIM,
        "entries": entries,
    }
    write_whole(arguments.out, json.dumps(result, indent=1) + "\n")
    rows = [
        (f"{entry['size']:,}", entry["mode"], *(f"{share:.3f}" for share in entry["recall"].values()))
        for entry in entries
    ]
    heads = ("slots", "mode", *(f"of the nearest {n}" for n in NEAREST))
    console.table(Console(), heads, rows)


if __name__ == "__main__":
    main()
