"""Conversion of the official implementation's configuration and parameters (google-research/meliad)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.model.language_model import abstract_params
from block_recurrent.model.ops.memory import EMPTY_SCORE

# Options of the official code that this model fixes. A configuration with another value is refused.
_FIXED_FIELDS: dict[str, Any] = {
    "relative_position_type": "t5",
    "t5_num_buckets": 32,
    "t5_max_distance": 128,
    "t5_bidirectional": False,
    "t5_shared_across_layers": False,
    "layernorm_type": "rms_no_mean",
    "layernorm_epsilon": 1e-6,
    "normalize_keys_queries": True,
    "normalize_epsilon": 1e-6,
    "use_bias_in_dense": False,
    "mlp_activation": "relu",
    "tied_embeddings": True,
}

# The same for a model with an external memory.
_FIXED_MEMORY_FIELDS: dict[str, Any] = {
    "disable_position_encoding_for_memory_layers": True,
    "relative_position_type_in_memory_layers": None,
    "memory_cross_batch": False,
    "memory_reset_on_new_doc": True,
    "memory_combine_with_local": "TRAINABLE_WEIGHTED_MEAN",
    "memory_query_stride": 1,
    "memory_update_stride": 1,
    "memory_sharpening": 1e6,
    "memory_empty_score": EMPTY_SCORE,
}

_GATES: dict[str | None, Any] = {"bias": "fixed", "lstm": "lstm", None: "fixed"}

# Names of the leaves of one side of a layer: ours, and the official ones below `tbase` (tokens) or `recurrent_tbase`
# (states).
_SIDE_LEAVES = {
    "projections/norm/scale": "_kvq/pre_attn_layernorm/scale",
    "projections/keys/kernel": "_kvq/keys_layer/kernel",
    "projections/values/kernel": "_kvq/values_layer/kernel",
    "projections/queries/kernel": "_kvq/queries_layer/kernel",
    "projections/cross_queries/kernel": "_kvq/queries2_layer/kernel",
    "projections/attention_scale": "_kvq/attention_scale",
    "projections/cross_attention_scale": "attention_scale2",
    "output/kernel": "post_attn_mlp/output_layer/kernel",
    "mlp/norm/scale": "pre_ffn_layernorm/scale",
    "mlp/hidden/kernel": "ffn/hidden0/kernel",
    "mlp/output/kernel": "ffn/output_layer/kernel",
    "relative_bias": "../relative_positions/rel_embedding",
    "external_memory_bias": "../external_memory_bias",
    "initial_state": "../recurrent_initial_state",
    "position_embeddings": "_kvq/position_embeddings",
    "cell/norm/scale": "pre_ffn_layernorm/scale",
    "cell/hidden/kernel": "ffn/hidden0/kernel",
}
_UPDATE_LEAVES = {
    "candidate/projection/kernel": "output_layer/kernel",
    "gate/bias": "gate_bias",
    "gate/forget_gate/kernel": "forget_gate/kernel",
    "gate/forget_gate/bias": "forget_gate/bias",
    "gate/input_gate/kernel": "input_gate/kernel",
    "gate/input_gate/bias": "input_gate/bias",
}
for _ours, _official in _UPDATE_LEAVES.items():
    _SIDE_LEAVES[f"cell/attention/{_ours}"] = f"post_attn_mlp/{_official}"
    _SIDE_LEAVES[f"cell/mlp/{_ours}"] = f"ffn/{_official}"


def model_config(fields: Mapping[str, Any]) -> ModelConfig:
    """Converts the configuration of an official model.

    Args:
        fields: the official hyperparameters by name, as in a parity fixture's `config.json`. Without the Transformer-XL
            cache (`use_xl_cache` False) the model is a vanilla transformer over the segment.

    Raises:
        InputError: a field is missing, or has a value that this model does not support.
    """
    _check_fixed(fields, _FIXED_FIELDS)
    try:
        return ModelConfig(
            vocab_size=fields["vocab_size"],
            embed_dim=fields["embed_dim"],
            num_layers=fields["num_layers"],
            num_heads=fields["num_heads"],
            head_dim=fields["head_dim"],
            mlp_dim=fields["mlp_dim"],
            window_length=fields["window_length"] if fields.get("use_xl_cache", True) else None,
            recurrent_layers=tuple(fields["recurrent_layer_indices"] or ()),
            num_states=fields["num_states"] or 0,
            cell=fields["cell"] or "skip",
            gate=_GATES.get(fields["gate_type"], fields["gate_type"]),
            feedback=fields["feedback"],
            **_memory_fields(fields),
            dropout_rate=fields["dropout_rate"],
            attention_dropout_rate=fields["attn_dropout_rate"],
            dtype=fields["dtype"],
        )
    except KeyError as missing:
        raise InputError(f"official configuration: field {missing} is missing") from None


def _memory_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of the external memory; none for a model without one."""
    layers = fields.get("memory_layer_indices")
    if not layers:
        return {}
    # The official memory has sizes of its own, which override those of the layer.
    own_sizes = {"memory_num_heads": "num_heads", "memory_key_size": "head_dim", "memory_value_size": "head_dim"}
    _check_fixed(fields, _FIXED_MEMORY_FIELDS | {name: fields[field] for name, field in own_sizes.items()})
    return {
        "memory_layers": tuple(layers),
        "memory_size": fields["memory_database_size"],
        "memory_neighbors": fields["memory_num_neighbors"],
    }


def _check_fixed(fields: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for name, value in fixed.items():
        if fields.get(name, value) != value:
            raise InputError(f"official configuration: {name} = {fields[name]!r}: only {value!r} is supported")


def convert_params(flat: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, Any]:
    """Converts official parameters, or their gradients, to this model's nested dictionary.

    Every leaf keeps its official shape; only names change.

    Args:
        flat: arrays by official path joined with `/`, with or without a leading `param/` or `grad/`.
        config: the model configuration.

    Raises:
        InputError: an entry is missing, is left over, or has a shape that does not fit `config`.
    """
    available = {name.removeprefix("param/").removeprefix("grad/"): array for name, array in flat.items()}

    def take(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        converted = {}
        for name, leaf in tree.items():
            path = f"{prefix}{name}"
            converted[name] = take(leaf, f"{path}/") if isinstance(leaf, Mapping) else _take_leaf(available, path, leaf)
        return converted

    params = take(abstract_params(config), "")
    if available:
        raise InputError("official parameters: this configuration has no place for " + ", ".join(sorted(available)))
    return params


def official_path(path: str) -> str:
    """Returns the official path of one of our leaves; both paths are joined with `/`."""
    if path == "embedding":
        return "embed/embedding"
    if path == "final_norm/scale":
        return "final_layernorm/scale"
    _, layer, leaf = path.split("/", 2)
    index = int(layer.removeprefix("layer_"))
    side = "recurrent_tbase" if leaf.startswith("states/") else "tbase"
    official = _SIDE_LEAVES[leaf.removeprefix("states/").removeprefix("tokens/")]
    if official.startswith("../"):
        return f"transformer{index}/{official.removeprefix('../')}"
    return f"transformer{index}/{side}/{official}"


def _take_leaf(available: dict[str, np.ndarray], path: str, leaf: Any) -> np.ndarray:
    name = official_path(path)
    if name not in available:
        raise InputError(f"official parameters: {name} is missing (our {path})")
    array = np.asarray(available.pop(name))
    if array.shape != leaf.shape:
        raise InputError(
            f"official parameters: {name} has shape {array.shape}; the configuration requires {leaf.shape}"
        )
    return array
