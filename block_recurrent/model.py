"""The language model, as a Flax module and as pure functions of plain dictionaries of parameters."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.layers.norm import RMSNorm
from block_recurrent.layers.recurrent_layer import RecurrentLayer
from block_recurrent.layers.transformer_layer import TransformerLayer
from block_recurrent.ops.attention import KeysValues
from block_recurrent.ops.blocks import merge_blocks, split_blocks
from block_recurrent.ops.dropout import tiled_dropout
from block_recurrent.state import LayerState, ModelState, init_layer_state, reset_rows
from block_recurrent.typing import Activations, Key, Logits, Params, Rows, Tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Output:
    """Result of a call.

    Attributes:
        logits: (B, T, V) float32; position t predicts the token after t.
        state: the memory after the segment.
    """

    logits: Logits
    state: ModelState


class BlockRecurrentLM(nnx.Module):
    """Decoder-only language model: tied embeddings, sliding-window layers, recurrent layers where configured.

    Args:
        config: what to build.
        rngs: source of the `params` stream for initialisation; it is not kept.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        table_init = nnx.initializers.normal(stddev=1.0)
        self.embedding = nnx.Param(table_init(rngs.params(), (config.vocab_size, config.embed_dim)))
        self.layers = nnx.Dict({layer_name(i): _make_layer(config, i, rngs=rngs) for i in range(config.num_layers)})
        self.final_norm = RMSNorm(config)

    def __call__(
        self,
        tokens: Tokens,
        state: ModelState,
        *,
        start_of_document: Rows | None = None,
        dropout_key: Key | None = None,
    ) -> Output:
        """Runs a segment.

        Args:
            tokens: (B, T) integers below V; T is any multiple of W (any length at all without a window).
            state: the memory before the segment.
            start_of_document: (B,) rows whose memory is reset to its initial value first; None resets none.
            dropout_key: None switches dropout off.

        Raises:
            InputError: T is not a multiple of W.
        """
        self._check_length(tokens.shape[1])
        if start_of_document is not None:
            state = reset_rows(state, self.init_state(tokens.shape[0]), start_of_document)
        stack_key, final_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        x = self.embedding[...][tokens].astype(self.config.dtype)
        run = self._run_block_by_block if self.config.feedback else self._run_stack
        x, state = run(x, state, stack_key)
        x = tiled_dropout(self.final_norm(x), self.config.dropout_rate, final_key)
        return Output(logits=self._logits(x), state=state)

    def init_state(self, batch_size: int) -> ModelState:
        """The memory at the start of a document, for `batch_size` rows."""
        recurrent = [
            layer.states.initial(batch_size) if isinstance(layer, RecurrentLayer) else None
            for layer in self.layers.values()
        ]
        return ModelState(tuple(init_layer_state(self.config, batch_size, states) for states in recurrent))

    def _check_length(self, length: int) -> None:
        window = self.config.window_length
        if window is not None and (length % window or not length):
            raise InputError(
                f"tokens: {length} per row; must be a positive multiple of ModelConfig.window_length = {window}"
            )

    def _run_stack(
        self, x: Activations, state: ModelState, dropout_key: Key | None, feedback: KeysValues | None = None
    ) -> tuple[Activations, ModelState]:
        states: list[LayerState] = []
        for index, (layer, layer_state) in enumerate(zip(self.layers.values(), state.layers, strict=True)):
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
            if isinstance(layer, RecurrentLayer):
                x, layer_state = layer(x, layer_state, key)
            else:
                x, layer_state = layer(x, layer_state, feedback, key)
            states.append(layer_state)
        return x, ModelState(tuple(states))

    def _run_block_by_block(
        self, x: Activations, state: ModelState, dropout_key: Key | None
    ) -> tuple[Activations, ModelState]:
        """Block feedback: every layer reads the state that the block before has left, so blocks are sequential."""
        blocks = jnp.swapaxes(split_blocks(x, self.config.window_length or x.shape[1]), 0, 1)
        last = max(self.config.recurrent_indices)  # with several recurrent layers, the last one is broadcast
        source = self.layers[layer_name(last)]
        assert isinstance(source, RecurrentLayer)

        def step(state: ModelState, inputs: tuple[Activations, jax.Array]) -> tuple[ModelState, Activations]:
            block, index = inputs
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
            recurrent = state.layers[last].recurrent
            assert recurrent is not None
            keys, values = source.states.readable(recurrent)
            block, state = self._run_stack(block, state, key, KeysValues(keys[:, None], values[:, None]))
            return state, block

        state, blocks = jax.lax.scan(step, state, (blocks, jnp.arange(len(blocks))))
        return merge_blocks(jnp.swapaxes(blocks, 0, 1)), state

    def _logits(self, x: Activations) -> Logits:
        """Tied output layer, in float32, divided by sqrt(D)."""
        table = self.embedding[...]
        return jnp.einsum("btd,vd->btv", x.astype(table.dtype), table) / math.sqrt(self.config.embed_dim)


def layer_name(index: int) -> str:
    """Name of a layer in the dictionary of parameters."""
    return f"layer_{index:02d}"


def init_params(config: ModelConfig, key: Key) -> dict[str, Any]:
    """Draws fresh parameters (spec of the initialisers: the official code's).

    Returns:
        Nested plain dictionaries of float32 arrays, one per parameter; kernels are (in, out).
    """
    return nnx.to_pure_dict(nnx.split(BlockRecurrentLM(config, rngs=nnx.Rngs(params=key)))[1])


def abstract_params(config: ModelConfig) -> dict[str, Any]:
    """Shapes and dtypes of the parameters, as `jax.ShapeDtypeStruct` leaves, without computing anything."""
    return nnx.to_pure_dict(_split_abstract(config)[1])


def count_params(config: ModelConfig) -> int:
    """How many numbers the parameters hold, the embedding table included."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(config)))


def init_state(config: ModelConfig, params: Params, batch_size: int) -> ModelState:
    """The memory at the start of a document, for `batch_size` rows."""
    return bind(config, params).init_state(batch_size)


def apply(
    config: ModelConfig,
    params: Params,
    tokens: Tokens,
    state: ModelState,
    *,
    start_of_document: Rows | None = None,
    dropout_key: Key | None = None,
) -> Output:
    """Runs a segment; see `BlockRecurrentLM.__call__`. Pure: jit it with `config` static."""
    return bind(config, params)(tokens, state, start_of_document=start_of_document, dropout_key=dropout_key)


def bind(config: ModelConfig, params: Params) -> BlockRecurrentLM:
    """The module that holds these parameters. Make it inside `jax.jit` and let it go there."""
    return nnx.merge(_split_abstract(config)[0], params)


def _make_layer(config: ModelConfig, index: int, *, rngs: nnx.Rngs) -> TransformerLayer | RecurrentLayer:
    if index in config.recurrent_indices:
        return RecurrentLayer(config, rngs=rngs)
    return TransformerLayer(config, cross_attention=config.feedback, rngs=rngs)


@functools.lru_cache(maxsize=64)
def _split_abstract(config: ModelConfig) -> tuple[Any, Any]:
    return nnx.split(nnx.eval_shape(lambda: BlockRecurrentLM(config, rngs=nnx.Rngs(params=0))))
