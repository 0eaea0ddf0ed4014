"""Summary of a configuration without training: parameters, FLOPs, memory and batch layout."""

import dataclasses
import math
from typing import Any

import jax
from jax.sharding import AbstractMesh

from block_recurrent.config import RunConfig
from block_recurrent.model.flops import forward_flops, training_flops
from block_recurrent.model.language_model import abstract_params, layer_name
from block_recurrent.model.state import LayerState, ModelState
from block_recurrent.parallel.sharding import check_rows, mesh_shape, row_shards, shardings
from block_recurrent.training.step import abstract_train_state


@dataclasses.dataclass(frozen=True)
class Summary:
    """Tables of (name, value) pairs, formatted for printing.

    Attributes:
        layers: kind and parameter count of each layer, of the embedding and of the final norm.
        flops: FLOPs per token of each part.
        memory: bytes per device of parameters, gradients, optimizer state and model state.
        batch: mesh, rows, segments and tokens.
    """

    layers: list[tuple[str, str]]
    flops: list[tuple[str, str]]
    memory: list[tuple[str, str]]
    batch: list[tuple[str, str]]


def summarise(run: RunConfig, num_devices: int) -> Summary:
    """Summarises a run.

    Args:
        run: the configuration.
        num_devices: devices of the mesh; they need not be attached.

    Raises:
        InputError: the mesh does not match the devices, or the batch does not match the mesh.
    """
    shape = mesh_shape(run.mesh, num_devices)
    mesh = AbstractMesh(tuple(shape.values()), tuple(shape))
    check_rows(mesh, run.data.batch_size, run.train.accumulate_steps)
    return Summary(_layers(run), _flops(run), _memory(run, mesh), _batch(run, mesh))


def _layers(run: RunConfig) -> list[tuple[str, str]]:
    model, params = run.model, abstract_params(run.model)
    rows = [("embedding, also the output layer", _parameters(params["embedding"]))]
    for index in range(model.num_layers):
        kind = f"recurrent, {model.num_states} states, {model.gate}:{model.cell}"
        ordinary = "ordinary, attends to the states" if model.feedback else "ordinary"
        kind = "LSTM" if model.layer == "lstm" else kind if index in model.recurrent_indices else ordinary
        if index in model.memory_indices:
            kind += f", memory of {model.memory_size:,} tokens"
        rows.append((f"{layer_name(index)}: {kind}", _parameters(params["layers"][layer_name(index)])))
    rows.append(("final norm", _parameters(params["final_norm"])))
    rows.append(("all", _parameters(params)))
    rows.append(("all but the embedding", f"{_num_elements(params) - _num_elements(params['embedding']):,}"))
    return rows


def _flops(run: RunConfig) -> list[tuple[str, str]]:
    parts = forward_flops(run.model, run.data.segment_length)
    forward = sum(parts.values())
    rows = [(part, f"{flops:,.0f}") for part, flops in parts.items()]
    training = training_flops(run.model, run.data.segment_length)
    rows += [("forward", f"{forward:,.0f}"), ("training", f"{training:,.0f}")]
    step = training * run.tokens_per_step
    return [*rows, ("training, one step", f"{step:.4g}")]


def _memory(run: RunConfig, mesh: Any) -> list[tuple[str, str]]:
    state = abstract_train_state(run)
    parts = {
        "parameters": state.params,
        "gradients": state.params,
        "optimizer": state.opt_state,
        "caches and recurrent states": _without_memories(state.model_state),
    }
    if run.model.memory_layers:
        parts["external memories"] = _memories(state.model_state)
    sizes = {name: bytes_per_device(mesh, part) for name, part in parts.items()}
    rows = [(name, _megabytes(size)) for name, size in sizes.items()]
    return [*rows, ("all but activations", _megabytes(sum(sizes.values())))]


def _without_memories(state: ModelState) -> ModelState:
    return ModelState(tuple(LayerState(layer.keys, layer.values, layer.recurrent) for layer in state.layers))


def _memories(state: ModelState) -> ModelState:
    return ModelState(
        tuple(dataclasses.replace(layer, keys=None, values=None, recurrent=None) for layer in state.layers)
    )


def _batch(run: RunConfig, mesh: Any) -> list[tuple[str, str]]:
    data, model = run.data, run.model
    blocks = "no blocks" if model.window_length is None else f"{data.segment_length // model.window_length} blocks"
    rows_per_device = data.batch_size // row_shards(mesh)
    return [
        ("mesh", ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())),
        ("rows", f"{data.batch_size}, {rows_per_device} per device, in {run.train.accumulate_steps} micro-batch(es)"),
        ("segment", f"{data.segment_length} tokens, {blocks}"),
        *([("segments of a row in a step", str(segments))] if (segments := run.train.backprop_segments) > 1 else []),
        ("tokens per step", f"{run.tokens_per_step:,}"),
        ("tokens per run", f"{run.tokens_per_step * run.train.num_steps:,}"),
    ]


def bytes_per_device(mesh: Any, tree: Any) -> int:
    """Returns the bytes of a tree of arrays, or of their shapes, on one device of a mesh."""

    def size(leaf: Any, sharding: Any) -> int:
        return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize

    return sum(jax.tree.leaves(jax.tree.map(size, tree, shardings(mesh, tree))))


def _num_elements(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _parameters(tree: Any) -> str:
    return f"{_num_elements(tree):,} parameters"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
