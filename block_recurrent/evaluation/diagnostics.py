"""Gates and states of a recurrent model, recorded block by block over one long document.

The layers run through their public methods, so that intermediate values can be read. The states after each block are
those of the model itself, run in segments of one block; a test compares them.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig
from block_recurrent.evaluation.results import FixedGate, LayerDiagnostics, LSTMGate, StatePoint
from block_recurrent.model.half_lives import half_life_tokens
from block_recurrent.model.language_model import bind, init_state, layer_name
from block_recurrent.model.layers.cells import CellGates
from block_recurrent.model.layers.projections import Projected
from block_recurrent.model.layers.recurrent import RecurrentLayer
from block_recurrent.model.ops.attention import KeyValues, attention_weights
from block_recurrent.model.ops.gates import Gates
from block_recurrent.model.state import LayerState, ModelState
from block_recurrent.progress import ProgressCallback
from block_recurrent.typing import Activations, Params, Tokens

_SIMILARITY_TOKENS = 1000
# Keeps half-lives finite: a gate that is 1 in float32 forgets less than can be measured.
_LARGEST_GATE = 1 - 1e-7
_TINY = 1e-30  # instead of a zero in a denominator or a logarithm


class Probe(NamedTuple):
    """Measurements of one recurrent layer in one block of one row.

    Attributes:
        state: (S, D) the states before the block.
        next_state: (S, D) the states after the block.
        gates: by place, each (S, D) or (D,).
        states_share: see `results.StatePoint`.
        states_read: see `results.StatePoint`.
        mass_on_previous_block: see `results.StatePoint`.
    """

    state: Float[Array, "S D"]
    next_state: Float[Array, "S D"]
    gates: CellGates
    states_share: Float[Array, ""]
    states_read: Float[Array, ""]
    mass_on_previous_block: Float[Array, ""]


@functools.partial(jax.jit, static_argnums=0)
def probe_block(
    config: ModelConfig, params: Params, state: ModelState, tokens: Tokens
) -> tuple[ModelState, dict[str, Probe]]:
    """Runs one block of one row, (1, W) tokens.

    Returns:
        The state after the block, and the probe of each recurrent layer by the layer's name.
    """
    model = bind(config, params)
    x = model.embed(tokens)
    feedback = _feedback(config, model, state)
    states, probes = [], {}
    for index, before in enumerate(state.layers):
        layer: Any = model.layers[layer_name(index)]
        if isinstance(layer, RecurrentLayer):
            x, after, probes[layer_name(index)] = _probe_layer(layer, x, before)
        else:
            x, after = layer(x, before, feedback, None)
        states.append(after)
    return ModelState(tuple(states)), probes


def _feedback(config: ModelConfig, model: Any, state: ModelState) -> KeyValues | None:
    if not config.feedback:
        return None
    last = config.feedback_index
    return _one_block(model.layers[layer_name(last)].states.key_values(state.layers[last].recurrent))


def _one_block(kv: KeyValues) -> KeyValues:
    """Inserts an axis of one block, (B, K, N, H) to (B, 1, K, N, H)."""
    return KeyValues(kv.keys[:, None], kv.values[:, None])


def _probe_layer(layer: RecurrentLayer, x: Activations, before: LayerState) -> tuple[Activations, LayerState, Probe]:
    assert before.recurrent is not None
    tokens = layer.tokens.projections(x)
    blocks = layer.tokens.visible(tokens, before)
    visible = KeyValues(blocks.keys[:, 0], blocks.values[:, 0])
    states = layer.states.project(before.recurrent)
    next_state, gates = layer.states.cell.update(before.recurrent, layer.states.attend(states, visible))
    probe = Probe(
        state=before.recurrent[0].astype(jnp.float32),
        next_state=next_state[0].astype(jnp.float32),
        gates={place: Gates(*map(_of_the_only_row, at_place)) for place, at_place in gates.items()},
        states_share=_states_share(layer, tokens, before, states.kv),
        states_read=_states_read(layer, tokens, states.kv),
        mass_on_previous_block=_mass_on_previous_block(layer, states, visible, x.shape[1]),
    )
    x = layer.tokens.attend(x, tokens, before, _one_block(states.kv), None)
    return x, dataclasses.replace(layer.tokens.next_state(tokens, before), recurrent=next_state), probe


def _of_the_only_row(gate: Float[Array, "..."]) -> Float[Array, "..."]:
    return gate if gate.ndim == 1 else gate[0]  # a constant gate has no row axis


def _states_share(layer: RecurrentLayer, tokens: Projected, before: LayerState, states: KeyValues) -> Float[Array, ""]:
    """Returns the share of the states in the norm of the attention output."""
    from_tokens = layer.tokens.self_attention(tokens, before, None)
    from_states = layer.tokens.cross_attention(tokens, _one_block(states))
    kernel = layer.tokens.output.kernel[...].astype(from_tokens.dtype)
    own_rows = from_tokens.shape[-1]  # of the kernel; the others multiply the output of cross-attention
    own, cross = (
        jnp.linalg.norm((attended @ rows).astype(jnp.float32), axis=-1)
        for attended, rows in ((from_tokens, kernel[:own_rows]), (from_states, kernel[own_rows:]))
    )
    return jnp.mean(cross / (own + cross + _TINY))


def _states_read(layer: RecurrentLayer, tokens: Projected, states: KeyValues) -> Float[Array, ""]:
    """Returns the effective number of states to which a token attends: exp(entropy of the weights)."""
    assert tokens.cross_queries is not None
    weights = attention_weights(tokens.cross_queries, states.keys, layer.tokens.projections.cross_attention_scale[...])
    entropy = -jnp.sum(weights * jnp.log(jnp.maximum(weights, _TINY)), axis=-1)
    return jnp.mean(jnp.exp(entropy))


def _mass_on_previous_block(
    layer: RecurrentLayer, states: Projected, visible: KeyValues, block_length: int
) -> Float[Array, ""]:
    """Returns the weight of the previous block in the states' attention to tokens."""
    assert states.cross_queries is not None
    weights = attention_weights(states.cross_queries, visible.keys, layer.states.projections.cross_attention_scale[...])
    return jnp.mean(jnp.sum(weights[..., : weights.shape[-1] - block_length], axis=-1))


def watch(
    config: ModelConfig, params: Params, tokens: np.ndarray, progress: ProgressCallback
) -> tuple[LayerDiagnostics, ...]:
    """Runs the full blocks of a document and returns the diagnostics of each recurrent layer.

    Args:
        config: the model, with recurrent layers.
        params: its parameters.
        tokens: (n,) ids, at least W. Tokens after the last full block are ignored. An external memory is written block
            by block here, as with segments of length W.
        progress: called after each block, with the number of blocks done and the total.
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
    return tuple(watcher.result() for watcher in watchers.values())


class _Watcher:
    """Accumulator of the probes of one layer."""

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
                change=float(np.linalg.norm(np.asarray(probe.next_state) - state) / max(np.linalg.norm(state), _TINY)),
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

    def result(self) -> LayerDiagnostics:
        gates = [sums.result(place, self._window) for place, sums in self._gates.items()]
        return LayerDiagnostics(
            layer=self._layer,
            fixed_gates=tuple(gate for gate in gates if isinstance(gate, FixedGate)),
            lstm_gates=tuple(gate for gate in gates if isinstance(gate, LSTMGate)),
            states=tuple(self._points),
        )


class _GateSums:
    """Accumulator of means over blocks and state vectors, per channel, in float64."""

    def __init__(self):
        self._count, self._sums = 0, np.zeros(())
        self._constant = True  # and the two gates sum to 1

    def add(self, gates: Gates) -> None:
        self._constant &= gates.forget.ndim == 1 and np.allclose(gates.forget + gates.input, 1)
        forget, input_gate = (np.atleast_2d(np.asarray(gate, np.float64)) for gate in gates)
        log_forget = np.log(np.clip(forget, _TINY, _LARGEST_GATE))
        self._sums = self._sums + np.stack(
            [x.sum(axis=0) for x in (forget, forget**2, input_gate, input_gate**2, log_forget)]
        )
        self._count += len(forget)

    def result(self, place: str, window: int) -> FixedGate | LSTMGate:
        return self._fixed(place, window) if self._constant else self._lstm(place, window)

    def _fixed(self, place: str, window: int) -> FixedGate:
        forget, _, _, _, log_forget = self._sums / self._count
        return FixedGate(
            place=place, keep=_floats(forget), half_life_tokens=_floats(half_life_tokens(log_forget, window))
        )

    def _lstm(self, place: str, window: int) -> LSTMGate:
        forget, forget_square, input_gate, input_square, log_forget = self._sums / self._count
        return LSTMGate(
            place=place,
            forget_mean=_floats(forget),
            forget_deviation=_floats(np.sqrt(np.maximum(forget_square - forget**2, 0))),
            input_mean=_floats(input_gate),
            input_deviation=_floats(np.sqrt(np.maximum(input_square - input_gate**2, 0))),
            half_life_tokens=_floats(half_life_tokens(log_forget, window)),
        )


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), _TINY))
