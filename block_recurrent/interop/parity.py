"""Comparison with the official implementation on fixtures.

A fixture (.npz) holds parameters, consecutive segments of tokens, and the official code's results: logits, losses,
caches, recurrent states and external memories after each segment, and the gradients of one segment's loss. Without an
external memory there are three segments, and the gradients are of the second; with one, they are of the last.
"""

import dataclasses
import functools
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from block_recurrent.config import ModelConfig
from block_recurrent.config.model import AttentionKernel
from block_recurrent.errors import InputError
from block_recurrent.interop.meliad import convert_params, model_config, official_path
from block_recurrent.model.language_model import abstract_params, apply, bind, init_state
from block_recurrent.model.layers.recurrent import RecurrentLayer
from block_recurrent.model.loss import cross_entropy
from block_recurrent.model.ops.memory import EMPTY_SCORE, retrieve
from block_recurrent.model.state import ModelState, reset_rows
from block_recurrent.trees import named_leaves
from block_recurrent.typing import RowMask, Tokens

LIMITS = {"logits": 2e-5, "caches": 2e-5, "states": 2e-5, "memory": 2e-5, "loss": 1e-6, "gradients": 1e-4}
_SEGMENTS = 3  # of a fixture without an external memory
_GRADIENT_SEGMENT = 1


@dataclasses.dataclass(frozen=True)
class Parity:
    """Largest error of each kind in one fixture.

    Errors of logits, caches, recurrent states and memories are absolute, errors of the loss relative, and errors of
    gradients relative to the largest entry of that parameter's gradient. An error is infinite if an entry is missing,
    has another shape or is not finite.

    Attributes:
        errors: the largest error, by kind.
        places: the entry with that error, by kind.
    """

    errors: dict[str, float]
    places: dict[str, str]

    @property
    def passed(self) -> bool:
        """True if every error is within `LIMITS`."""
        return all(self.errors[kind] <= limit for kind, limit in LIMITS.items())


class _Comparison:
    """Collects the largest error of each kind."""

    def __init__(self, fixture: Mapping[str, np.ndarray]):
        self.fixture = fixture
        self.errors = dict.fromkeys(LIMITS, 0.0)
        self.places = dict.fromkeys(LIMITS, "")

    def compare(self, kind: str, name: str, ours: Any, *, relative: bool = False) -> None:
        error = float("inf")
        if name in self.fixture:
            error = _largest_error(np.asarray(ours), self.fixture[name], relative=relative)
        if error > self.errors[kind] or not self.places[kind]:
            self.errors[kind], self.places[kind] = error, name


def check_fixture(path: Path, *, attention_kernel: AttentionKernel = "xla") -> Parity:
    """Runs the model on a fixture's segments and compares every result.

    Args:
        path: the fixture.
        attention_kernel: see `ModelConfig`.

    Raises:
        InputError: the file cannot be read as a fixture, or its parameters do not fit its configuration.
    """
    fixture = _read(path)
    fields = json.loads(str(fixture["config.json"]))
    config = dataclasses.replace(model_config(fields), attention_kernel=attention_kernel)
    segments = _num_segments(fields)
    gradient_segment = segments - 1 if config.memory_layers else _GRADIENT_SEGMENT
    params = convert_params({k: v for k, v in fixture.items() if k.startswith("param/")}, config)
    comparison = _Comparison(fixture)
    # Rows that start a document must not depend on the state before.
    state = jax.tree.map(_garbage, init_state(config, params, len(fixture["seg0/tokens"])))
    for segment in range(segments):
        _compare_scores(comparison, config, params, state, f"seg{segment}")
        (_, (losses, logits, next_state)), gradients = _segment(config, params, state, fixture, f"seg{segment}")
        if segment == gradient_segment:
            for name, gradient in _official_leaves(gradients):
                comparison.compare("gradients", f"grad/{name}", gradient, relative=True)
        comparison.compare("logits", f"seg{segment}/logits", logits)
        mean = np.mean(np.asarray(losses, np.float64))
        comparison.compare("loss", f"seg{segment}/loss", mean, relative=True)
        _compare_state(comparison, f"seg{segment}", next_state)
        state = next_state
    _refuse_leftovers(comparison, abstract_params(config))
    return Parity(comparison.errors, comparison.places)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as archive:
            fixture = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a parity fixture (.npz): {error}") from None
    _check_entries(path, fixture, ["config.json"])
    segments = range(_num_segments(json.loads(str(fixture["config.json"]))))
    _check_entries(path, fixture, [f"seg{s}/{n}" for s in segments for n in ("tokens", "targets", "start_of_sequence")])
    return fixture


def _check_entries(path: Path, fixture: Mapping[str, np.ndarray], names: list[str]) -> None:
    for name in names:
        if name not in fixture:
            raise InputError(f"{path}: not a parity fixture: entry {name!r} is missing")


def _num_segments(fields: Mapping[str, Any]) -> int:
    return fields.get("num_segments", _SEGMENTS)


def _garbage(leaf: Any) -> Any:
    return jnp.full_like(leaf, jnp.nan if jnp.issubdtype(leaf.dtype, jnp.floating) else 12345)


def _segment(config: ModelConfig, params: Any, state: ModelState, fixture: Mapping[str, np.ndarray], name: str) -> Any:
    entries = (fixture[f"{name}/{entry}"] for entry in ("tokens", "targets", "start_of_sequence"))
    return _loss_and_gradients(config, params, state, *(jnp.asarray(entry) for entry in entries))


@functools.partial(jax.jit, static_argnums=0)
def _loss_and_gradients(
    config: ModelConfig, params: Any, state: ModelState, tokens: Tokens, targets: Tokens, start: RowMask
) -> Any:
    def loss(params: Any) -> Any:
        output = apply(config, params, tokens, state, start_of_document=start)
        losses = cross_entropy(output.logits, targets)
        return jnp.sum(losses), (losses, output.logits, output.state)

    return jax.value_and_grad(loss, has_aux=True)(params)


def _compare_scores(comparison: _Comparison, config: ModelConfig, params: Any, state: ModelState, segment: str) -> None:
    """Compares the scores of the slots that the segment's queries retrieve, before the segment is written."""
    if not config.memory_layers or config.feedback:
        return
    tokens, start = (jnp.asarray(comparison.fixture[f"{segment}/{name}"]) for name in ("tokens", "start_of_sequence"))
    for index, scores in _retrieved_scores(config, params, state, tokens, start).items():
        name = f"{segment}/retrieved/transformer{index}/scores"
        # A bucket without a key has the penalty as its score, up to rounding.
        comparison.compare("memory", name, np.where(scores < EMPTY_SCORE / 2, EMPTY_SCORE, scores))


@functools.partial(jax.jit, static_argnums=0)
def _retrieved_scores(
    config: ModelConfig, params: Any, state: ModelState, tokens: Tokens, start: RowMask
) -> dict[int, Any]:
    model = bind(config, params)
    state = reset_rows(state, model.init_state(len(tokens)), start)
    x, scores = model.embed(tokens), {}
    for index, (layer, before) in enumerate(zip(model.layers.values(), state.layers, strict=True)):
        if index in config.memory_indices:
            side: Any = layer.tokens if isinstance(layer, RecurrentLayer) else layer
            queries = side.projections(x).queries
            found = retrieve(queries, before.memory, config.memory_neighbors, config.memory_retrieval)
            scores[index] = found.scores
        x = layer(x, before, None)[0] if isinstance(layer, RecurrentLayer) else layer(x, before, None, None)[0]
    return scores


def _official_leaves(tree: Any) -> list[tuple[str, Any]]:
    return [(official_path(name), leaf) for name, leaf in named_leaves(tree).items()]


def _compare_state(comparison: _Comparison, prefix: str, state: ModelState) -> None:
    for index, layer in enumerate(state.layers):
        base = f"{prefix}/state/transformer{index}"
        if layer.keys is not None:
            comparison.compare("caches", f"{base}/previous_keys", layer.keys)
            comparison.compare("caches", f"{base}/previous_values", layer.values)
        if layer.memory_keys is not None:
            comparison.compare("memory", f"{base}/memory_keys", layer.memory_keys)
            comparison.compare("memory", f"{base}/memory_values", layer.memory_values)
            index_by_head = np.broadcast_to(np.asarray(layer.memory_index)[:, None], layer.memory_keys.shape[:2])
            comparison.compare("memory", f"{base}/memory_index", index_by_head)
        if layer.recurrent is not None:
            comparison.compare("states", f"{base}/recurrent_state", layer.recurrent)
        elif f"{base}/recurrent_state" in comparison.fixture:
            comparison.compare("states", f"{base}/recurrent_state", np.nan)


def _refuse_leftovers(comparison: _Comparison, params: Any) -> None:
    """Counts gradients that belong to none of our parameters as errors."""
    known = {f"grad/{name}" for name, _ in _official_leaves(params)}
    for name in comparison.fixture:
        if name.startswith("grad/") and name not in known:
            comparison.compare("gradients", name, np.nan)


def _largest_error(ours: np.ndarray, theirs: np.ndarray, *, relative: bool) -> float:
    """Returns the largest error; infinite if shapes differ or either side is not finite."""
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    error = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max(initial=0)
    largest = np.abs(theirs).max(initial=0) if relative else 1.0
    return float(error / largest) if error else 0.0
