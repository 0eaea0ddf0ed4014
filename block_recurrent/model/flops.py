"""Floating-point operations (FLOPs), counted analytically.

Only matrix products count: two operations for each multiplication. Attention counts the keys that a query sees, W of
the 2 W that the implementation multiplies, so the number describes the model and not the implementation. A training
step has three times the operations of the forward pass, except for an external memory, through which no gradient flows;
rematerialisation is not counted.
"""

import block_recurrent.model.layers.cells  # noqa: F401  (registers the built-in cells and gates)
from block_recurrent.config import ModelConfig
from block_recurrent.registry import CELLS

TRAINING_FACTOR = 3


def forward_flops(config: ModelConfig, segment_length: int) -> dict[str, float]:
    """Returns the FLOPs of the forward pass per token, by part of the model.

    Args:
        config: the model.
        segment_length: tokens of a segment; only used without a window.
    """
    logits = {"logits": 2.0 * config.embed_dim * config.vocab_size}
    if config.layer == "lstm":
        # Four gates, each with one product for the input and one for the hidden state.
        return {"LSTM": config.num_layers * 16.0 * config.embed_dim**2} | logits
    crossing = config.num_layers if config.feedback else len(config.recurrent_indices)
    heads = config.num_heads * config.head_dim
    visible = (segment_length - 1) / 2 if config.window_length is None else config.window_length
    plain = config.num_layers - crossing
    flops = {
        "token projections": 2 * config.embed_dim * heads * (plain * 4 + crossing * 6),
        "token self-attention": config.num_layers * 4 * visible * heads,
        "token cross-attention": crossing * 4 * config.num_states * heads,
        "token feed-forward": config.num_layers * 4 * config.embed_dim * config.mlp_dim,
    } | logits
    if config.memory_indices:
        memories = len(config.memory_indices) * heads
        # Scores; bucketed retrieval selects keys and values by products as large as that of the scores.
        products = 3 if config.memory_retrieval == "bucketed" else 1
        flops["memory retrieval"] = memories * 2 * products * config.memory_size
        flops["memory attention"] = memories * 4 * config.memory_neighbors
    if config.recurrent_indices:
        assert config.window_length is not None
        per_token = len(config.recurrent_indices) * config.num_states / config.window_length
        flops["state projections"] = per_token * 8 * config.embed_dim * heads
        flops["state attention"] = per_token * 4 * heads * (config.num_states + 2 * config.window_length)
        flops["state cell"] = per_token * CELLS.get(config.cell).flops(config)
    return {part: float(count) for part, count in flops.items()}


def training_flops(config: ModelConfig, segment_length: int) -> float:
    """Returns the FLOPs of a training step per token; see `forward_flops`.

    The backward pass has twice the operations of the forward pass. For the attention to an external memory it has as
    many, because keys and values are constants, and for the retrieval none.
    """
    parts = forward_flops(config, segment_length)
    constant = 2 * parts.get("memory retrieval", 0.0) + parts.get("memory attention", 0.0)
    return TRAINING_FACTOR * sum(parts.values()) - constant
