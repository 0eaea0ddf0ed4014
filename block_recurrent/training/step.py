"""One training step and one evaluation step, as pure functions."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from block_recurrent.config import ModelConfig, RunConfig
from block_recurrent.model.language_model import bind, init_params, init_state, layer_name
from block_recurrent.model.layers.cells import GateMeans
from block_recurrent.model.loss import chunked_cross_entropy
from block_recurrent.model.state import ModelState
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.typing import Key, Params, RowMask, Tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that the next step depends on, except its batch, which is a function of `step`.

    Attributes:
        step: () int32, steps taken.
        skipped: () int32, how many of them changed nothing because a loss or gradient was not finite.
        params: nested dictionaries of float32 arrays.
        opt_state: the optimizer's.
        model_state: caches and recurrent states of the training rows.
        dropout_key: never changes; each step folds its number in.
    """

    step: Int[Array, ""]
    skipped: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    model_state: ModelState
    dropout_key: Key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SegmentBatch:
    """What a step reads: one segment of each row.

    Attributes:
        tokens: (B, T) int32.
        targets: (B, T) int32, the tokens that follow.
        weights: (B, T) float32: 1 where the target is scored, 0 on padding.
        start_of_document: (B,) bool.
    """

    tokens: Tokens
    targets: Tokens
    weights: Float[Array, "B T"]
    start_of_document: RowMask


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """What a training step tells of itself; float32.

    Attributes:
        row_nats: (B,), cross-entropy summed over each row's scored tokens.
        tokens: (), scored tokens of the batch.
        gradient_norm: (), of all gradients together.
        update_norm: (), of what the optimizer adds to the parameters.
        param_norm: (), before the step.
        state_norms: by recurrent layer, (), the mean length of a state vector behind the segment.
        gates: by recurrent layer, the mean openness of its gates over rows, blocks, states and channels.
        finite: () bool; where False the step changed nothing but `step` and `skipped`.
    """

    row_losses: Float[Array, "B"]
    tokens: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    update_norm: Float[Array, ""]
    param_norm: Float[Array, ""]
    state_norms: dict[str, Float[Array, ""]]
    gates: dict[str, GateMeans]
    finite: Array


def init_train_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    batch_size: int,
    params: Params | None = None,
) -> TrainState:
    """The state before the first step; parameters are drawn unless given."""
    params_key, dropout_key = jax.random.split(jax.random.key(seed))
    params = init_params(config, params_key) if params is None else params
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        model_state=init_state(config, params, batch_size),
        dropout_key=dropout_key,
    )


def abstract_train_state(run: RunConfig) -> TrainState:
    """Shapes and dtypes of a run's state, without computing anything."""
    optimizer = make_optimizer(run.optimizer, run.train.num_steps)
    data, seed = run.data, run.train.seed
    return jax.eval_shape(lambda: init_train_state(run.model, optimizer, seed=seed, batch_size=data.batch_size))


def train_step(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: SegmentBatch,
    *,
    accumulate_steps: int = 1,
    gather: Callable[[Params], Params] = lambda params: params,
) -> tuple[TrainState, StepMetrics]:
    """Takes a step on the mean loss of the batch's scored tokens.

    The official code steps on the sum; Adafactor's updates do not depend on that factor. A step whose loss or gradients
    are not finite leaves parameters, optimizer and memory as they were: nothing broken can spread.

    Args:
        config: the model.
        optimizer: from `make_optimizer`.
        state: before the step.
        batch: its rows are a multiple of `accumulate_steps`.
        accumulate_steps: micro-batches computed one after another; the sum of their gradients is the batch's.
        gather: places divided parameters for the forward pass; see `partitioning.gather`.

    Returns:
        The next state, and what the step tells.
    """
    key = jax.random.fold_in(state.dropout_key, state.step)
    gradients, forward = _accumulate(config, state, batch, _if_used(config, key), accumulate_steps, gather)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    gradient_norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(jnp.sum(forward.row_losses)) & jnp.isfinite(gradient_norm)
    metrics = StepMetrics(
        row_losses=forward.row_losses,
        tokens=jnp.sum(batch.weights),
        gradient_norm=gradient_norm,
        update_norm=optax.tree.norm(updates),
        param_norm=optax.tree.norm(state.params),
        state_norms=_state_norms(forward.model_state),
        gates=jax.tree.map(jnp.mean, forward.gates),
        finite=finite,
    )
    params: Any = optax.apply_updates(state.params, updates)
    after = (params, opt_state, forward.model_state)
    before = (state.params, state.opt_state, state.model_state)
    params, opt_state, model_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    next_state = TrainState(
        step=state.step + 1,
        skipped=state.skipped + (1 - finite.astype(jnp.int32)),
        params=params,
        opt_state=opt_state,
        model_state=model_state,
        dropout_key=state.dropout_key,
    )
    return next_state, metrics


def eval_step(
    config: ModelConfig, params: Params, state: ModelState, batch: SegmentBatch
) -> tuple[ModelState, Float[Array, "B"], Float[Array, "B"]]:
    """Runs a segment without dropout.

    Returns:
        The memory after the segment; each row's nats summed over its scored tokens; how many those are.
    """
    scored = score_tokens(config, params, state, batch)
    return scored.state, jnp.sum(scored.nats, axis=1), jnp.sum(batch.weights, axis=1)


class ScoredTokens(NamedTuple):
    """What a segment costs.

    Attributes:
        nats: (B, T) float32, 0 where a target is not scored.
        state: the memory after the segment.
        gates: as in `model.Output`.
    """

    nats: Float[Array, "B T"]
    state: ModelState
    gates: dict[str, GateMeans]


def score_tokens(
    config: ModelConfig, params: Params, state: ModelState, batch: SegmentBatch, dropout_key: Key | None = None
) -> ScoredTokens:
    """Runs a segment and scores its targets, `config.loss_chunk` tokens of logits at a time."""
    model = bind(config, params)
    features, state, gates = model.hidden_states(
        batch.tokens, state, start_of_document=batch.start_of_document, dropout_key=dropout_key
    )
    nats = chunked_cross_entropy(model.logits, features, batch.targets, config.loss_chunk)
    return ScoredTokens(nats * batch.weights, state, gates)


class _Forward(NamedTuple):
    row_losses: Float[Array, "B"]
    model_state: ModelState
    gates: dict[str, GateMeans]


def _accumulate(
    config: ModelConfig,
    state: TrainState,
    batch: SegmentBatch,
    dropout_key: Key | None,
    parts: int,
    gather: Callable[[Params], Params],
) -> tuple[Any, _Forward]:
    """Gradients of the mean loss, and what the forward pass left, with the rows computed in `parts`."""
    total = jnp.maximum(jnp.sum(batch.weights), 1)

    def loss(params: Params, model_state: ModelState, batch: SegmentBatch) -> tuple[Array, _Forward]:
        # Masks are shared by all rows, so every micro-batch uses the same key.
        nats, memory, gates = score_tokens(config, gather(params), model_state, batch, dropout_key)
        row_losses = jnp.sum(nats, axis=1)
        return jnp.sum(row_losses) / total, _Forward(row_losses, memory, gates)

    gradient = jax.grad(loss, has_aux=True)
    if parts == 1:
        return gradient(state.params, state.model_state, batch)

    def step(total: Any, rows: tuple[ModelState, SegmentBatch]) -> tuple[Any, _Forward]:
        gradients, forward = gradient(state.params, *rows)
        return jax.tree.map(jnp.add, total, gradients), forward

    # Part m takes rows m, m + parts, ...: every device has as many rows in each.
    def divide(x: Array) -> Array:
        return jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)

    def join(x: Array) -> Array:
        return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    gradients, forward = jax.lax.scan(step, zeros, jax.tree.map(divide, (state.model_state, batch)))
    row_losses, model_state = jax.tree.map(join, (forward.row_losses, forward.model_state))
    return gradients, _Forward(row_losses, model_state, jax.tree.map(lambda x: jnp.mean(x, axis=0), forward.gates))


def _state_norms(state: ModelState) -> dict[str, Array]:
    return {
        layer_name(index): jnp.mean(jnp.linalg.norm(layer.recurrent.astype(jnp.float32), axis=-1))
        for index, layer in enumerate(state.layers)
        if layer.recurrent is not None
    }


def _if_used(config: ModelConfig, key: Any) -> Any:
    return key if config.dropout_rate or config.attention_dropout_rate else None
