"""Prefill and decode step as StableHLO: functions that run without this package, wherever StableHLO can be loaded.

The exported functions take and return plain dictionaries of arrays. `prefill` processes many tokens of each row,
`decode` one. Both return the next state, in which `logits` (B, V) predicts the next token. The server samples.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import export as jax_export
from jaxtyping import Array, Int

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.files import write_whole
from block_recurrent.generation import decode_state
from block_recurrent.generation.decode_state import DecodeState
from block_recurrent.generation.decode_step import decode_step
from block_recurrent.generation.prefill import prefill
from block_recurrent.model.language_model import abstract_params
from block_recurrent.model.state import select_rows
from block_recurrent.trees import from_named_leaves, named_leaves
from block_recurrent.typing import RowMask, Tokens

MANIFEST_FILE = "functions.json"
PLATFORMS = ("cpu", "tpu", "cuda")
_FORMAT = "block_recurrent functions 2"


def export_functions(folder: epath.Path, *, config: ModelConfig, segment_length: int, vocabulary_size: int) -> None:
    """Writes `prefill.stablehlo`, `decode.stablehlo` and `functions.json`, which documents their arguments.

    The functions accept any batch size and are compiled once for each.

    Args:
        folder: created if it does not exist.
        config: the model.
        segment_length: tokens of a row in one call of `prefill`; with an external memory, those of a segment.
        vocabulary_size: ids below this one have a meaning; higher ids are padding rows of the embedding table.

    Raises:
        InputError: the folder already holds exported functions.
    """
    if (folder / MANIFEST_FILE).exists():
        raise InputError(f"--out {folder}: {MANIFEST_FILE} is there already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, exported in _export(config, segment_length).items():
        write_whole(folder / f"{name}.stablehlo", bytes(exported.serialize()))
    manifest = _manifest(config, segment_length, vocabulary_size)
    write_whole(folder / MANIFEST_FILE, json.dumps(manifest, indent=2) + "\n")  # last: it marks a complete export


def abstract_state(config: ModelConfig, segment_length: int, batch_size: Any = 1) -> DecodeState:
    """Returns shapes and dtypes of a decoding state, without computing it."""
    params = abstract_params(config)
    one = jax.eval_shape(lambda params: decode_state.init(config, params, 1, segment_length=segment_length), params)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch_size, *leaf.shape[1:]), leaf.dtype), one)


def _manifest(config: ModelConfig, segment_length: int, vocabulary_size: int) -> dict[str, Any]:
    leaves = named_leaves(abstract_state(config, segment_length))
    return {
        "format": _FORMAT,
        "platforms": PLATFORMS,
        "prefill": "(params, state, tokens (B, T) int32, lengths (B,) int32, start (B,) bool) -> state",
        "decode": "(params, state, tokens (B,) int32) -> state",
        "params": "params.safetensors, by name",
        "tokens_per_prefill": segment_length,
        "most_tokens": None if decode_state.blocks_end(config) else segment_length,
        "vocab_size": vocabulary_size,
        "state": {name: {"shape": ["B", *leaf.shape[1:]], "dtype": str(leaf.dtype)} for name, leaf in leaves.items()},
    }


def _export(config: ModelConfig, segment_length: int) -> dict[str, jax_export.Exported]:
    (rows,) = jax_export.symbolic_shape("B")
    abstract = abstract_params(config)
    params = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in named_leaves(abstract).items()}
    like = abstract_state(config, segment_length, rows)

    def nest(flat: dict[str, Array]) -> Any:
        return from_named_leaves(flat, abstract)

    def state_of(flat: dict[str, Array]) -> DecodeState:
        return from_named_leaves(flat, like)

    def prefill_rows(
        params: dict[str, Array], state: dict[str, Array], tokens: Tokens, lengths: Int[Array, "B"], start: RowMask
    ) -> dict[str, Array]:
        nested = nest(params)
        fresh = decode_state.init(config, nested, 1, segment_length=segment_length)
        fresh = jax.tree.map(lambda new, old: jnp.broadcast_to(new, old.shape), fresh, state_of(state))
        return named_leaves(prefill(config, nested, select_rows(start, fresh, state_of(state)), tokens, lengths))

    def decode_rows(params: dict[str, Array], state: dict[str, Array], tokens: Int[Array, "B"]) -> dict[str, Array]:
        return named_leaves(decode_step(config, nest(params), state_of(state), tokens))

    def integers(*shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.dtype("int32"))

    flat_state = named_leaves(like)
    start = jax.ShapeDtypeStruct((rows,), np.dtype("bool"))
    return {
        "prefill": jax_export.export(jax.jit(prefill_rows), platforms=PLATFORMS)(
            params, flat_state, integers(rows, segment_length), integers(rows), start
        ),
        "decode": jax_export.export(jax.jit(decode_rows), platforms=PLATFORMS)(params, flat_state, integers(rows)),
    }
