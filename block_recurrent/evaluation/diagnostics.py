"""Gates and states, watched block by block while one long document is read.

The layers are run from their public parts, so that what lies between can be looked at; the memory that this leaves is
the model's own (a test compares them).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig
from block_recurrent.evaluation.results import FixedGate, LayerDiagnostics, LSTMGate, StatePoint
from block_recurrent.model.language_model import bind, init_state, layer_name
from block_recurrent.model.layers.cells import DualCell, SingleCell, SkipCell
from block_recurrent.model.layers.recurrent import RecurrentLayer
from block_recurrent.model.ops.attention import KeyValues, attend
from block_recurrent.model.ops.gates import Gates
from block_recurrent.model.ops.positions import causal_mask, relative_bias
from block_recurrent.model.state import LayerState, ModelState
from block_recurrent.typing import Activations, Params, States, Tokens

_SIMILARITY_TOKENS = 1000
# Keeps half-lives finite: a gate that is 1 in float32 forgets nothing that could be measured.
_LARGEST_GATE = 1 - 1e-7


class Probe(NamedTuple):
    """What one block of one document shows of one recurrent layer.

    Attributes:
        state: (S, D) the states before the block.
        next_state: (S, D) behind it.
        gates: by place, each (S, D) or (D,).
        states_share, states_read, mass_on_previous_block: as in `results.StatePoint`.
    """

    state: Float[Array, "S D"]
    next_state: Float[Array, "S D"]
    gates: dict[str, Gates]
    states_share: Float[Array, ""]
    states_read: Float[Array, ""]
    mass_on_previous_block: Float[Array, ""]


@functools.partial(jax.jit, static_argnums=0)
def probe_block(
    config: ModelConfig, params: Params, state: ModelState, tokens: Tokens
) -> tuple[ModelState, dict[str, Probe]]:
    """Reads one block of one row: (1, W) tokens.

    Returns:
        The memory behind it, and what each recurrent layer shows, by the layer's name.
    """
    model = bind(config, params)
    x = model.embedding[...][tokens].astype(config.dtype)
    feedback = _feedback(config, model, state)
    states, probes = [], {}
    for index, before in enumerate(state.layers):
        layer: Any = model.layers[layer_name(index)]
        if isinstance(layer, RecurrentLayer):
            x, after, probes[layer_name(index)] = _probe_layer(config, layer, x, before)
        else:
            x, after = layer(x, before, feedback, None)
        states.append(after)
    return ModelState(tuple(states)), probes


def _feedback(config: ModelConfig, model: Any, state: ModelState) -> KeyValues | None:
    if not config.feedback:
        return None
    last = max(config.recurrent_indices)
    keys, values = model.layers[layer_name(last)].states.key_values(state.layers[last].recurrent)
    return KeyValues(keys[:, None], values[:, None])


def _probe_layer(
    config: ModelConfig, layer: RecurrentLayer, x: Activations, before: LayerState
) -> tuple[Activations, LayerState, Probe]:
    projected, size = layer.tokens.projections(x), config.num_heads * config.head_dim
    visible = KeyValues(*(part[:, 0] for part in layer.tokens.visible(projected, before)))
    state, scales = before.recurrent, layer.tokens.projections
    assert state is not None
    assert projected.cross_queries is not None
    own = layer.states.projections(state, positions=layer.states.position_embeddings[...])
    assert own.cross_queries is not None
    state_scales = layer.states.projections
    from_states = attend(own.queries, own.kv, state_scales.attention_scale[...])
    from_tokens = attend(own.cross_queries, visible, state_scales.cross_attention_scale[...])
    attended = jnp.concatenate([from_states, from_tokens], axis=-2).reshape(*state.shape[:2], -1)
    next_state, _ = layer.states.cell(state, attended)

    width = visible.keys.shape[1]
    bias = relative_bias(layer.tokens.relative_bias[...], x.shape[1], width)
    mask = causal_mask(x.shape[1], width, config.window_length)
    own_tokens = attend(projected.queries, visible, scales.attention_scale[...], bias=bias, mask=mask)
    crossing = attend(projected.cross_queries, own.kv, scales.cross_attention_scale[...])
    kernel = layer.tokens.output.kernel[...].astype(x.dtype)
    from_self = own_tokens.reshape(*x.shape[:2], size) @ kernel[:size]
    from_cross = crossing.reshape(*x.shape[:2], size) @ kernel[size:]
    x = layer.tokens.mlp(x + from_self + from_cross, None)

    self_norm, cross_norm = (jnp.linalg.norm(part.astype(jnp.float32), axis=-1) for part in (from_self, from_cross))
    weights = _weights(projected.cross_queries, own.kv.keys, scales.cross_attention_scale[...])
    entropy = -jnp.sum(weights * jnp.log(jnp.maximum(weights, 1e-30)), axis=-1)
    reading = _weights(own.cross_queries, visible.keys, state_scales.cross_attention_scale[...])
    probe = Probe(
        state=state[0].astype(jnp.float32),
        next_state=next_state[0].astype(jnp.float32),
        gates=_gates(layer.states.cell, state, attended),
        states_share=jnp.mean(cross_norm / (self_norm + cross_norm + 1e-30)),
        states_read=jnp.mean(jnp.exp(entropy)),
        mass_on_previous_block=jnp.mean(jnp.sum(reading[..., : width - x.shape[1]], axis=-1)),
    )
    return x, dataclasses.replace(layer.tokens.next_cache(projected), recurrent=next_state), probe


def _weights(
    queries: Float[Array, "B Q N H"], keys: Float[Array, "B K N H"], scale: Float[Array, "N"]
) -> Float[Array, "B N Q K"]:
    """Attention weights without bias or mask."""
    logits = jnp.einsum("bqnh,bknh->bnqk", queries.astype(jnp.float32), keys.astype(jnp.float32))
    return jax.nn.softmax(logits * jnp.abs(scale)[None, :, None, None], axis=-1)


def _gates(cell: SkipCell | SingleCell | DualCell, state: States, attended: Float[Array, "B S F"]) -> dict[str, Gates]:
    """The gates of a step, (S, D) or (D,), from what the states have read."""
    if isinstance(cell, SkipCell):
        read = {"attention": attended}
    elif isinstance(cell, SingleCell):
        read = {"mlp": jax.nn.relu(cell.hidden(attended))}
    else:
        between, _ = cell.attention(state, attended)
        read = {"attention": attended, "mlp": jax.nn.relu(cell.hidden(cell.norm(between)))}
    found = {place: getattr(cell, place).candidate_and_gates(hidden)[1] for place, hidden in read.items()}
    return {place: Gates(*(gate[0] if gate.ndim == 3 else gate for gate in gates)) for place, gates in found.items()}


def watch(
    config: ModelConfig, params: Params, tokens: np.ndarray, progress: Callable[[int, int], None]
) -> tuple[LayerDiagnostics, ...]:
    """Reads the whole blocks of a document.

    Args:
        config: the model, with recurrent layers.
        params: its parameters.
        tokens: (n,) ids, at least W.
        progress: called with (blocks done, blocks in all).

    Returns:
        One for each recurrent layer.
    """
    window = config.window_length or len(tokens)
    state = init_state(config, params, 1)
    watchers = {layer_name(i): _Watcher(i, window, state.layers[i].recurrent) for i in sorted(config.recurrent_indices)}
    blocks = len(tokens) // window
    for block in range(blocks):
        piece = jnp.asarray(tokens[block * window : (block + 1) * window].astype(np.int32))[None]
        state, probes = probe_block(config, params, state, piece)
        for name, probe in probes.items():
            watchers[name].add(jax.tree.map(np.asarray, probe))
        progress(block + 1, blocks)
    return tuple(watcher.result(config.gate) for watcher in watchers.values())


class _Watcher:
    """Gathers a layer's probes."""

    def __init__(self, layer: int, window: int, initial: Any):
        self._layer, self._window = layer, window
        self._initial = np.asarray(initial[0], np.float32)
        self._lag = max(1, round(_SIMILARITY_TOKENS / window))
        self._recent: list[np.ndarray] = []
        self._points: list[StatePoint] = []
        self._gates: dict[str, _GateSums] = {}

    def add(self, probe: Probe) -> None:
        state: Any = probe.state
        self._points.append(
            StatePoint(
                position=len(self._points) * self._window,
                norm=float(np.linalg.norm(state, axis=-1).mean()),
                change=float(np.linalg.norm(np.asarray(probe.next_state) - state) / max(np.linalg.norm(state), 1e-30)),
                similarity_to_initial=_cosine(state, self._initial),
                similarity_to_previous=_cosine(state, self._recent[0]) if len(self._recent) == self._lag else None,
                states_share=float(probe.states_share),
                states_read=float(probe.states_read),
                mass_on_previous_block=float(probe.mass_on_previous_block),
            )
        )
        self._recent = [*self._recent[-(self._lag - 1) :], state] if self._lag > 1 else [state]
        for place, gates in probe.gates.items():
            self._gates.setdefault(place, _GateSums()).add(gates)

    def result(self, gate: str) -> LayerDiagnostics:
        fixed = [sums.fixed(place, self._window) for place, sums in self._gates.items() if gate == "fixed"]
        lstm = [sums.lstm(place, self._window) for place, sums in self._gates.items() if gate == "lstm"]
        return LayerDiagnostics(
            layer=self._layer, fixed_gates=tuple(fixed), lstm_gates=tuple(lstm), states=tuple(self._points)
        )


class _GateSums:
    """Means over blocks and state vectors, channel by channel, in float64."""

    def __init__(self):
        self._count, self._sums = 0, np.zeros(())

    def add(self, gates: Gates) -> None:
        forget, input_gate = (np.atleast_2d(np.asarray(gate, np.float64)) for gate in gates)
        log_forget = np.log(np.clip(forget, 1e-30, _LARGEST_GATE))
        self._sums = self._sums + np.stack(
            [x.sum(axis=0) for x in (forget, forget**2, input_gate, input_gate**2, log_forget)]
        )
        self._count += len(forget)

    def fixed(self, place: Any, window: int) -> FixedGate:
        forget, _, _, _, log_forget = self._sums / self._count
        return FixedGate(place=place, keep=_floats(forget), half_life_tokens=_half_life(log_forget, window))

    def lstm(self, place: Any, window: int) -> LSTMGate:
        forget, forget_square, input_gate, input_square, log_forget = self._sums / self._count
        return LSTMGate(
            place=place,
            forget_mean=_floats(forget),
            forget_deviation=_floats(np.sqrt(np.maximum(forget_square - forget**2, 0))),
            input_mean=_floats(input_gate),
            input_deviation=_floats(np.sqrt(np.maximum(input_square - input_gate**2, 0))),
            half_life_tokens=_half_life(log_forget, window),
        )


def _half_life(log_keep: np.ndarray, window: int) -> tuple[float, ...]:
    return _floats(window * math.log(0.5) / log_keep)


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))
