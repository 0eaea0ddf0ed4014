"""An independent implementation of the model in numpy and float64, from the equations: one query at a time.

It shares no code with the package, except the layout of the parameters.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from block_recurrent.config import ModelConfig

_EMPTY = -999424.0

# Called before each block with its index and the recurrent states of the layers (None in ordinary layers); returns the
# states that the block starts with.
Intervention = Callable[[int, list[Any]], list[Any]]


def run(
    config: ModelConfig,
    params: Any,
    tokens: np.ndarray,
    intervene: Intervention = lambda block, states: states,
    segment: int | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the logits (B, T, V) of rows that start documents, and the last states (B, S, D) of recurrent layers.

    The length of the segments matters without a window and with external memories; None means one segment.
    """
    rows = [_run_row(config, params, row, intervene, segment or len(row)) for row in tokens]
    states = [np.stack(layer) for layer in zip(*(row[1] for row in rows), strict=True)]
    return np.stack([row[0] for row in rows]), states


def _run_row(
    config: ModelConfig, params: Any, tokens: np.ndarray, intervene: Intervention, segment: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    params = _as_float64(params)
    window = config.window_length or segment
    layers = list(params["layers"].values())
    size = config.num_heads * config.head_dim
    # With a window, the first block attends to a previous block of zeros.
    before = 0 if config.window_length is None else window
    keys = [np.zeros((before, size)) for _ in layers]
    values = [np.zeros((before, size)) for _ in layers]
    recurrent: list[Any] = [layer["states"]["initial_state"] if "states" in layer else None for layer in layers]
    # All keys and values of the document, by layer; a memory is derived from those before the segment.
    document: list[list[Any]] = [[np.zeros((0, size)), np.zeros((0, size))] for _ in layers]
    logits = []
    for start in range(0, len(tokens), window):
        recurrent = intervene(start // window, recurrent)
        x = params["embedding"][tokens[start : start + window]]
        shared = None
        if config.feedback:
            last = max(i for i, r in enumerate(recurrent) if r is not None)
            shared = _project(layers[last]["states"], recurrent[last], config)
        for i, layer in enumerate(layers):
            side = layer.get("tokens", layer)
            own = _project(side, x, config)
            all_keys, all_values = np.concatenate([keys[i], own["k"]]), np.concatenate([values[i], own["v"]])
            states = shared
            if recurrent[i] is not None:
                states = _project(layer["states"], recurrent[i], config)
                recurrent[i] = _next_state(config, layer["states"], recurrent[i], states, all_keys, all_values)
            written = start if config.feedback else start // segment * segment
            memory = [part[:written] for part in document[i]] if i in config.memory_indices else None
            x = _tokens(config, side, x, own, all_keys, all_values, states, memory)
            document[i] = [np.concatenate(pair) for pair in zip(document[i], (own["k"], own["v"]), strict=True)]
            if config.window_length is not None:
                keys[i], values[i] = own["k"], own["v"]
        y = _norm(x, params["final_norm"]["scale"])
        logits.append(y @ params["embedding"].T / np.sqrt(config.embed_dim))
    return np.concatenate(logits), [r for r in recurrent if r is not None]


def _tokens(
    config: ModelConfig, p: Any, x: Any, own: Any, keys: Any, values: Any, states: Any, memory: Any
) -> np.ndarray:
    scales = p["projections"]
    out = np.zeros((len(x), p["output"]["kernel"].shape[0]))
    size = config.num_heads * config.head_dim
    window = config.window_length or len(keys)
    for j in range(len(x)):
        for head, cut in _heads(config):
            logits = np.full(len(keys), -1e6)
            for k in range(len(keys)):
                distance = len(keys) - len(x) + j - k
                if 1 <= distance <= window:
                    bias = p["relative_bias"][head, _bucket(distance)] if memory is None else 0.0
                    logits[k] = (own["q"][j, cut] @ keys[k, cut] + bias) * abs(scales["attention_scale"][head])
            out[j, cut] = _softmax(logits) @ values[:, cut]
            if memory is not None:
                held_keys, held_values = (_slots(config.memory_size, part[:, cut]) for part in memory)
                scale = abs(scales["attention_scale"][head])
                external = _from_memory(config, own["q"][j, cut], held_keys, held_values, scale)
                gate = _sigmoid(p["external_memory_bias"][head])
                out[j, cut] = (1 - gate) * out[j, cut] + gate * external
            if states is not None:
                scale = abs(scales["cross_attention_scale"][head])
                weights = _softmax(states["k"][:, cut] @ own["q2"][j, cut] * scale)
                out[j, size:][cut] = weights @ states["v"][:, cut]
    y = x + out @ p["output"]["kernel"]
    mlp = p["mlp"]
    hidden = np.maximum(_norm(y, mlp["norm"]["scale"]) @ mlp["hidden"]["kernel"], 0)
    return y + hidden @ mlp["output"]["kernel"]


def _slots(size: int, tokens: np.ndarray) -> np.ndarray:
    """Returns what the slots of a ring hold: each the last token whose number is the slot's, modulo the size."""
    held = [[token for number, token in enumerate(tokens) if number % size == slot][-1:] for slot in range(size)]
    return np.array([token[0] if token else np.zeros(tokens.shape[1]) for token in held])


def _from_memory(config: ModelConfig, query: Any, keys: Any, values: Any, scale: float) -> np.ndarray:
    scores = keys @ query + np.where(keys.sum(axis=1) == 0, _EMPTY, 0)
    count = config.memory_neighbors
    if config.memory_retrieval == "bucketed":
        buckets = [np.arange(bucket, config.memory_size, count) for bucket in range(count)]
        weights = [np.exp(1e6 * (scores[bucket] - scores[bucket].max())) for bucket in buckets]
        weights = [weight / weight.sum() for weight in weights]
        found = [
            np.array([weight @ slots[bucket] for weight, bucket in zip(weights, buckets, strict=True)])
            for slots in (keys, values)
        ]
    else:
        best = np.argsort(-scores, kind="stable")[:count]
        found = [keys[best], values[best]]
    logits = found[0] @ query * scale
    weights = np.exp(logits - logits.max())
    return weights @ found[1] / weights.sum()


def _next_state(config: ModelConfig, p: Any, state: Any, own: Any, keys: Any, values: Any) -> np.ndarray:
    attended = np.zeros((len(state), 2 * config.num_heads * config.head_dim))
    size = config.num_heads * config.head_dim
    scales = p["projections"]
    for j in range(len(state)):
        for head, cut in _heads(config):
            weights = _softmax(own["k"][:, cut] @ own["q"][j, cut] * abs(scales["attention_scale"][head]))
            attended[j, cut] = weights @ own["v"][:, cut]
            weights = _softmax(keys[:, cut] @ own["q2"][j, cut] * abs(scales["cross_attention_scale"][head]))
            attended[j, size:][cut] = weights @ values[:, cut]
    cell = p["cell"]
    if config.cell == "single":
        hidden = np.maximum(attended @ cell["hidden"]["kernel"], 0)
        return _gated(config, cell["mlp"], state, hidden, tanh=True)
    state = _gated(config, cell["attention"], state, attended, tanh=False)
    if config.cell == "dual":
        hidden = np.maximum(_norm(state, cell["norm"]["scale"]) @ cell["hidden"]["kernel"], 0)
        state = _gated(config, cell["mlp"], state, hidden, tanh=False)
    return state


def _gated(config: ModelConfig, p: Any, state: Any, hidden: Any, *, tanh: bool) -> np.ndarray:
    candidate = hidden @ p["candidate"]["projection"]["kernel"]
    if config.gate_equations == "paper":
        candidate = candidate + p["candidate"]["projection"]["bias"]
        tanh = config.gate == "lstm"
    if tanh:
        candidate = np.tanh(candidate)
    gate = p["gate"]
    if config.gate == "fixed":
        forget = _sigmoid(gate["bias"])
        return forget * state + (1 - forget) * candidate
    forget = _sigmoid(hidden @ gate["forget_gate"]["kernel"] + gate["forget_gate"]["bias"] + 1)
    input_gate = _sigmoid(hidden @ gate["input_gate"]["kernel"] + gate["input_gate"]["bias"] - 1)
    return forget * state + input_gate * candidate


def _project(p: Any, x: np.ndarray, config: ModelConfig) -> dict[str, np.ndarray]:
    q = p["projections"]
    n = _norm(x, q["norm"]["scale"]) + p.get("position_embeddings", 0)
    out = {"k": n @ q["keys"]["kernel"], "v": n @ q["values"]["kernel"], "q": n @ q["queries"]["kernel"]}
    if "cross_queries" in q:
        out["q2"] = n @ q["cross_queries"]["kernel"]
    for name in out:
        if name != "v":
            for _, cut in _heads(config):
                out[name][:, cut] /= np.sqrt((out[name][:, cut] ** 2).sum(axis=1, keepdims=True) + 1e-6)
    return out


def _heads(config: ModelConfig) -> list[tuple[int, slice]]:
    return [(n, slice(n * config.head_dim, (n + 1) * config.head_dim)) for n in range(config.num_heads)]


def _bucket(distance: int) -> int:
    return distance if distance < 16 else min(31, 16 + int(np.log(distance / 16 + 1e-7) / np.log(8) * 16))


def _softmax(logits: np.ndarray) -> np.ndarray:
    largest = max(logits.max(), -1000.0)
    return np.exp(logits - largest) / (np.exp(logits - largest).sum() + np.exp(-1000.0 - largest))


def _norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * scale


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _as_float64(tree: Any) -> Any:
    return {k: _as_float64(v) for k, v in tree.items()} if isinstance(tree, dict) else np.asarray(tree, np.float64)
