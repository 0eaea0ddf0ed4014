"""The language model, as a Flax module and as pure functions of parameter dictionaries."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.model.layers.cells import GateMeans, mean_over_blocks
from block_recurrent.model.layers.lstm_baseline import LSTMLayer
from block_recurrent.model.layers.norm import RMSNorm
from block_recurrent.model.layers.recurrent import RecurrentLayer
from block_recurrent.model.layers.remat import apply_remat_policy, in_backward_order, scan_stacked
from block_recurrent.model.layers.transformer import TransformerLayer
from block_recurrent.model.ops.attention import KeyValues
from block_recurrent.model.ops.blocks import merge_blocks, split_blocks
from block_recurrent.model.ops.dropout import tiled_dropout
from block_recurrent.model.state import LayerState, ModelState, init_layer_state, reset_rows
from block_recurrent.typing import Activations, Key, Logits, Params, RowMask, Tokens

# Most layers of one loop, with `scan_layers`, by `ModelConfig.remat`. In the backward pass, gradients of all layers of
# a loop take memory from its first step, and their intermediate results until its last one: two loops take less memory
# on the device than one, and more on the host that compiles them.
_LONGEST_RUN = {"none": 9, "dots": 9, "full": 7}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModelOutput:
    """Result of one segment.

    Attributes:
        logits: (B, T, V) float32; position t predicts token t + 1.
        state: the state after the segment.
        gates: means of the gates of each recurrent layer over the segment, by `layer_name` and place in the cell; (B,)
            for the lstm gate, () for the fixed gate. Empty without recurrent layers.
    """

    logits: Logits
    state: ModelState
    gates: dict[str, GateMeans] = dataclasses.field(default_factory=dict)


class BlockRecurrentLM(nnx.Module):
    """Decoder-only language model with tied embeddings, sliding-window layers and recurrent layers.

    With `ModelConfig.layer = "lstm"`, the layers are LSTMs.

    Args:
        config: the architecture.
        rngs: random numbers for initialisation, from the stream `params`; not stored in the module.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.in_loops: Callable[[Any], Any] | None = None  # see `bind`
        table_init = nnx.initializers.normal(stddev=1.0)
        self.embedding = nnx.Param(table_init(rngs.params(), (config.vocab_size, config.embed_dim)))
        self.layers = nnx.Dict({layer_name(i): _make_layer(config, i, rngs=rngs) for i in range(config.num_layers)})
        self.final_norm = RMSNorm(config)

    def __call__(
        self,
        tokens: Tokens,
        state: ModelState,
        *,
        start_of_document: RowMask | None = None,
        dropout_key: Key | None = None,
    ) -> ModelOutput:
        """Runs a segment.

        Args:
            tokens: (B, T) integers below V; T is a multiple of W, or any length without a window.
            state: the state before the segment.
            start_of_document: (B,) True for rows that start with the initial state instead; None for no row.
            dropout_key: None switches dropout off.

        Raises:
            InputError: T is not a multiple of W, or does not divide the size of the external memory.
        """
        x, state, gates = self.hidden_states(
            tokens, state, start_of_document=start_of_document, dropout_key=dropout_key
        )
        return ModelOutput(logits=self.logits(x), state=state, gates=gates)

    def hidden_states(
        self,
        tokens: Tokens,
        state: ModelState,
        *,
        start_of_document: RowMask | None = None,
        keep_recurrent: RowMask | None = None,
        dropout_key: Key | None = None,
    ) -> tuple[Activations, ModelState, dict[str, GateMeans]]:
        """Runs a segment and returns hidden states instead of logits; see `__call__`.

        `keep_recurrent` has the rows that keep their recurrent states at the start of a document; see `reset_rows`.

        Returns:
            The hidden states (B, T, D), which are the input of `logits`; the state after the segment;
            `ModelOutput.gates`.
        """
        if start_of_document is not None:
            state = reset_rows(state, self.init_state(tokens.shape[0]), start_of_document, keep_recurrent)
        stack_key, final_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        x, state, gates = self.apply_layers(tokens, state, stack_key)
        return tiled_dropout(self.final_norm(x), self.config.dropout_rate, final_key), state, gates

    def apply_layers(
        self, tokens: Tokens, state: ModelState, dropout_key: Key | None = None
    ) -> tuple[Activations, ModelState, dict[str, GateMeans]]:
        """Runs a segment through the embedding and the layers, without the final norm; see `__call__`.

        Returns:
            The activations of the last layer (B, T, D), which are the input of `unembed`; the state after the segment;
            `ModelOutput.gates`.
        """
        self._check_length(tokens.shape[1])
        x = self.embed(tokens)
        run = self._run_block_by_block if self.config.feedback else self._run_stack
        return run(x, state, dropout_key)

    def embed(self, tokens: Tokens) -> Activations:
        """Returns the embeddings of the tokens, in the dtype of the activations."""
        return self.embedding[...][tokens].astype(self.config.dtype)

    def unembed(self, x: Activations) -> Logits:
        """Returns the logits of the last layer's activations: the final norm, then `logits`."""
        return self.logits(self.final_norm(x))

    def logits(self, x: Activations) -> Logits:
        """Returns the logits of hidden states: the product with the embedding table in float32, over sqrt(D)."""
        table = self.embedding[...]
        rows = x.astype(table.dtype).reshape(-1, x.shape[-1])  # flattened as in `layers.linear`
        return (rows @ table.T).reshape(*x.shape[:-1], -1) / math.sqrt(self.config.embed_dim)

    def init_state(self, batch_size: int) -> ModelState:
        """Returns the state at the start of a document, for `batch_size` rows."""
        recurrent = [layer.initial_states(batch_size) for layer in self.layers.values()]
        return ModelState(
            tuple(
                init_layer_state(self.config, batch_size, states, memory=index in self.config.memory_indices)
                for index, states in enumerate(recurrent)
            )
        )

    def _check_length(self, length: int) -> None:
        self.config.check_memory_segment(length, "tokens per row")
        window = self.config.window_length
        if window is not None and (length % window or not length):
            raise InputError(
                f"tokens: {length} per row; must be a positive multiple of ModelConfig.window_length = {window}"
            )

    def _run_stack(
        self, x: Activations, state: ModelState, dropout_key: Key | None, feedback: KeyValues | None = None
    ) -> tuple[Activations, ModelState, dict[str, GateMeans]]:
        states, gates = list(state.layers), {}
        for indices in _runs(self.config):
            keys = [None if dropout_key is None else jax.random.fold_in(dropout_key, i) for i in indices]
            layers = [self.layers[layer_name(i)] for i in indices]
            layers, x = in_backward_order(self.config, layers, x)
            first = layers[0]
            if isinstance(first, RecurrentLayer):
                (index,) = indices
                x, states[index], gates[layer_name(index)] = first(x, states[index], keys[0])
            elif len(indices) == 1:
                x, states[indices[0]] = apply_remat_policy(self.config, first)(x, states[indices[0]], feedback, keys[0])
            else:
                x, run_states = self._scan_layers(layers, x, [states[i] for i in indices], feedback, keys)
                for index, layer_state in zip(indices, run_states, strict=True):
                    states[index] = layer_state
        return x, ModelState(tuple(states)), gates

    def _scan_layers(
        self,
        layers: list[Any],
        x: Activations,
        states: list[LayerState],
        feedback: KeyValues | None,
        dropout_keys: list[Key | None],
    ) -> tuple[Activations, list[LayerState]]:
        """Runs equal layers as one loop over their stacked parameters."""
        graphs, params = zip(*map(nnx.split, layers), strict=True)

        def step(
            feedback: KeyValues | None, x: Activations, inputs: tuple[Any, LayerState, Key | None]
        ) -> tuple[Activations, LayerState]:
            params, layer_state, key = inputs
            if self.in_loops is not None:
                params = self.in_loops(params)
            return apply_remat_policy(self.config, nnx.merge(graphs[0], params))(x, layer_state, feedback, key)

        inputs = list(zip(params, states, dropout_keys, strict=True))
        x, states_after = scan_stacked(self.config, step, feedback, x, inputs)
        return x, [jax.tree.map(lambda leaf, i=i: leaf[i], states_after) for i in range(len(layers))]

    def _run_block_by_block(
        self, x: Activations, state: ModelState, dropout_key: Key | None
    ) -> tuple[Activations, ModelState, dict[str, GateMeans]]:
        """Runs a segment with block feedback.

        Every layer attends to the recurrent state after the previous block, so the blocks are sequential.
        """
        blocks = jnp.swapaxes(split_blocks(x, self.config.window_length or x.shape[1]), 0, 1)
        last = self.config.feedback_index
        source = self.layers[layer_name(last)]
        assert isinstance(source, RecurrentLayer)

        def step(state: ModelState, inputs: tuple[Activations, jax.Array]) -> tuple[ModelState, Any]:
            block, index = inputs
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
            recurrent = state.layers[last].recurrent
            assert recurrent is not None
            keys, values = source.states.key_values(recurrent)
            block, state, gates = self._run_stack(block, state, key, KeyValues(keys[:, None], values[:, None]))
            return state, (block, gates)

        state, (blocks, gates) = jax.lax.scan(step, state, (blocks, jnp.arange(len(blocks))))
        return merge_blocks(jnp.swapaxes(blocks, 0, 1)), state, mean_over_blocks(gates)


def layers_in_loops(config: ModelConfig) -> frozenset[str]:
    """Returns the names of the layers that run in loops over equal layers; see `ModelConfig.scan_layers`."""
    return frozenset(layer_name(i) for indices in _runs(config) if len(indices) > 1 for i in indices)


def _runs(config: ModelConfig) -> list[tuple[int, ...]]:
    """Returns the indices of the layers in order, in runs of one layer or, if `scan_layers`, of equal layers."""
    alone = config.recurrent_indices | config.memory_indices
    longest = _LONGEST_RUN[config.remat]
    runs: list[tuple[int, ...]] = []
    equal: list[int] = []
    for index in range(config.num_layers):
        if config.scan_layers and index not in alone:
            equal.append(index)
            continue
        runs += [*_divided(equal, longest), (index,)]
        equal = []
    return runs + _divided(equal, longest)


def _divided(indices: list[int], longest: int) -> list[tuple[int, ...]]:
    """Divides the indices of equal layers into as few runs of at most `longest` as possible, of similar length."""
    if not indices:
        return []
    length = math.ceil(len(indices) / math.ceil(len(indices) / longest))
    return [tuple(indices[start : start + length]) for start in range(0, len(indices), length)]


def layer_name(index: int) -> str:
    """Returns the name of a layer in the dictionary of parameters."""
    return f"layer_{index:02d}"


def init_params(config: ModelConfig, key: Key) -> dict[str, Any]:
    """Initialises the parameters, with the distributions of the official code.

    Returns:
        Nested plain dictionaries of float32 arrays, one per parameter; kernels have shape (in, out).
    """
    return nnx.to_pure_dict(nnx.split(BlockRecurrentLM(config, rngs=nnx.Rngs(params=key)))[1])


def abstract_params(config: ModelConfig) -> dict[str, Any]:
    """Returns shapes and dtypes of the parameters as `jax.ShapeDtypeStruct` leaves, without computing any."""
    return nnx.to_pure_dict(_split_abstract(config)[1])


def count_params(config: ModelConfig) -> int:
    """Returns the number of parameters, including the embedding table."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(config)))


def init_state(config: ModelConfig, params: Params, batch_size: int) -> ModelState:
    """Returns the state at the start of a document, for `batch_size` rows."""
    return bind(config, params).init_state(batch_size)


def apply(
    config: ModelConfig,
    params: Params,
    tokens: Tokens,
    state: ModelState,
    *,
    start_of_document: RowMask | None = None,
    dropout_key: Key | None = None,
) -> ModelOutput:
    """Runs a segment; see `BlockRecurrentLM.__call__`. A pure function; `config` is static under `jax.jit`."""
    return bind(config, params)(tokens, state, start_of_document=start_of_document, dropout_key=dropout_key)


def bind(config: ModelConfig, params: Params, in_loops: Callable[[Any], Any] | None = None) -> BlockRecurrentLM:
    """Returns a module with these parameters.

    Call it inside `jax.jit`, and do not keep the module: its parameters are tracers there.

    Args:
        config: the architecture.
        params: the parameters.
        in_loops: applied to the parameters of each layer of `layers_in_loops`, inside the loop.
    """
    model = nnx.merge(_split_abstract(config)[0], params)
    model.in_loops = in_loops
    return model


def _make_layer(config: ModelConfig, index: int, *, rngs: nnx.Rngs) -> TransformerLayer | RecurrentLayer | LSTMLayer:
    if config.layer == "lstm":
        return LSTMLayer(config, rngs=rngs)
    memory = index in config.memory_indices
    if index in config.recurrent_indices:
        return RecurrentLayer(config, memory=memory, rngs=rngs)
    return TransformerLayer(config, cross_attention=config.feedback, memory=memory, rngs=rngs)


@functools.lru_cache(maxsize=64)
def _split_abstract(config: ModelConfig) -> tuple[Any, Any]:
    return nnx.split(nnx.eval_shape(lambda: BlockRecurrentLM(config, rngs=nnx.Rngs(params=0))))
