"""Reading and decoding as StableHLO: functions that run without this package, wherever something loads StableHLO.

Exported functions take and return plain dictionaries of arrays. `prefill` reads many tokens of each row, `decode` one;
both return the next state, in which `logits` (B, V) predicts the next token. Drawing it is the server's part.
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
from block_recurrent.generation import decode
from block_recurrent.generation.decode import DecodeState
from block_recurrent.model.language_model import abstract_params
from block_recurrent.model.state import select_rows
from block_recurrent.training.saved_run import SavedRun
from block_recurrent.trees import from_named_leaves, named_leaves
from block_recurrent.typing import RowMask, Tokens

MANIFEST_FILE = "functions.json"
PLATFORMS = ("cpu", "tpu")
_FORMAT = "block_recurrent functions 1"


def export_functions(saved: SavedRun, folder: epath.Path) -> None:
    """Writes `prefill.stablehlo`, `decode.stablehlo` and `functions.json`, which says how to call them.

    Any batch size can be called; each is compiled once.

    Args:
        saved: the run.
        folder: made if it is not there.

    Raises:
        InputError: something is there already.
    """
    if (folder / MANIFEST_FILE).exists():
        raise InputError(f"--out {folder}: {MANIFEST_FILE} is there already; choose another folder")
    config, segment_length = saved.config.model, saved.config.data.segment_length
    like = abstract_state(config, segment_length)
    shapes = {name: (leaf.shape[1:], leaf.dtype) for name, leaf in named_leaves(like).items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, exported in _export(config, segment_length).items():
        (folder / f"{name}.stablehlo").write_bytes(bytes(exported.serialize()))
    manifest = {
        "format": _FORMAT,
        "platforms": PLATFORMS,
        "prefill": "(params, state, tokens (B, T) int32, lengths (B,) int32, start (B,) bool) -> state",
        "decode": "(params, state, tokens (B,) int32) -> state",
        "params": "params.safetensors, by name",
        "tokens_per_prefill": segment_length,
        "most_tokens": None if config.window_length else segment_length,
        "vocab_size": saved.vocabulary().size,
        "state": {name: {"shape": ["B", *shape], "dtype": str(dtype)} for name, (shape, dtype) in shapes.items()},
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n")  # last: without it there is no export


def abstract_state(config: ModelConfig, segment_length: int, batch_size: Any = 1) -> DecodeState:
    """Shapes and dtypes of a decoding state, without computing anything."""
    params = abstract_params(config)
    one = jax.eval_shape(lambda params: decode.init(config, params, 1, segment_length=segment_length), params)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch_size, *leaf.shape[1:]), leaf.dtype), one)


def _export(config: ModelConfig, segment_length: int) -> dict[str, jax_export.Exported]:
    (rows,) = jax_export.symbolic_shape("B")
    abstract = abstract_params(config)
    params = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in named_leaves(abstract).items()}
    like = abstract_state(config, segment_length, rows)

    def nest(flat: dict[str, Array]) -> Any:
        return from_named_leaves(flat, abstract)

    def state_of(flat: dict[str, Array]) -> DecodeState:
        return from_named_leaves(flat, like)

    def prefill(
        params: dict[str, Array], state: dict[str, Array], tokens: Tokens, lengths: Int[Array, "B"], start: RowMask
    ) -> dict[str, Array]:
        nested = nest(params)
        fresh = decode.init(config, nested, 1, segment_length=segment_length)
        fresh = jax.tree.map(lambda new, old: jnp.broadcast_to(new, old.shape), fresh, state_of(state))
        return named_leaves(decode.read(config, nested, select_rows(start, fresh, state_of(state)), tokens, lengths))

    def decode_one(params: dict[str, Array], state: dict[str, Array], tokens: Int[Array, "B"]) -> dict[str, Array]:
        return named_leaves(decode.decode_step(config, nest(params), state_of(state), tokens))

    def integers(*shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.dtype("int32"))

    flat_state = named_leaves(like)
    start = jax.ShapeDtypeStruct((rows,), np.dtype("bool"))
    return {
        "prefill": jax_export.export(jax.jit(prefill), platforms=PLATFORMS)(
            params, flat_state, integers(rows, segment_length), integers(rows), start
        ),
        "decode": jax_export.export(jax.jit(decode_one), platforms=PLATFORMS)(params, flat_state, integers(rows)),
    }
