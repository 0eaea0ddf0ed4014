"""Small models of every architecture, with parameters and inputs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from block_recurrent import init_params
from block_recurrent.config import ModelConfig
from block_recurrent.config.model import lstm_fields

WINDOW = 8

_SLIDE: Any = {
    "vocab_size": 23,
    "embed_dim": 16,
    "num_layers": 3,
    "num_heads": 2,
    "head_dim": 6,
    "mlp_dim": 20,
    "window_length": WINDOW,
}
_RECURRENT: Any = _SLIDE | {"recurrent_layers": (1,), "num_states": 5}

CELLS_AND_GATES = {
    f"{gate}_{cell}": ModelConfig(**_RECURRENT, cell=cell, gate=gate)
    for cell in ("dual", "single", "skip")
    for gate in ("fixed", "lstm")
}
RECURRENT = CELLS_AND_GATES | {
    "two_recurrent": ModelConfig(**_RECURRENT | {"recurrent_layers": (0, -1)}),
    "feedback_fixed_skip": ModelConfig(**_RECURRENT, feedback=True),
    "feedback_lstm_single": ModelConfig(**_RECURRENT, feedback=True, cell="single", gate="lstm"),
    "feedback_two_recurrent": ModelConfig(**_RECURRENT | {"recurrent_layers": (0, 1)}, feedback=True),
    "paper_fixed_dual": ModelConfig(**_RECURRENT, gate_equations="paper", cell="dual"),
    "paper_lstm_skip": ModelConfig(**_RECURRENT, gate_equations="paper", gate="lstm"),
}
CACHED = {"slide": ModelConfig(**_SLIDE)} | RECURRENT
ALL = CACHED | {"vanilla": ModelConfig(**_SLIDE | {"window_length": None})}
SEGMENT = 2 * WINDOW  # of the models with an external memory; it divides their memories, which wrap after two segments
_MEMORY: Any = {"memory_size": 2 * SEGMENT, "memory_neighbors": 4}
MEMORY = {
    "memory": ModelConfig(**_SLIDE, **_MEMORY, memory_layers=(1,)),
    # One layer with both, below one with a memory alone.
    "memory_and_recurrence": ModelConfig(**_RECURRENT, **_MEMORY, memory_layers=(1, -1), memory_retrieval="exact"),
    "memory_feedback": ModelConfig(**_RECURRENT, **_MEMORY | {"memory_size": 24}, memory_layers=(0, 1), feedback=True),
    "memory_no_window": ModelConfig(
        **_SLIDE | {"window_length": None}, **_MEMORY, memory_layers=(0, 2), memory_retrieval="approximate"
    ),
}
LSTM = ModelConfig(layer="lstm", vocab_size=23, embed_dim=16, num_layers=3, **lstm_fields())


def perturbed_params(config: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """Returns perturbed parameters: no scale is 1, no bias is 0, and some scales are negative."""
    params = init_params(config, jax.random.key(seed))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    perturbed = [x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(structure, perturbed)
    for layer in params["layers"].values():
        tokens = layer.get("tokens", layer)
        tokens["projections"]["attention_scale"] *= jnp.array([-2.0, 2.0])
    return params


def random_tokens(config: ModelConfig, batch_size: int, length: int, seed: int = 2) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), (batch_size, length), 0, config.vocab_size)


def with_dropout(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, dropout_rate=0.3, attention_dropout_rate=0.3)
