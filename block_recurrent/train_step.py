"""One training step and one evaluation step, as pure functions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from block_recurrent.config import ModelConfig, RunConfig
from block_recurrent.loss import cross_entropy
from block_recurrent.model import apply, init_params, init_state
from block_recurrent.optimizer import make_optimizer
from block_recurrent.state import ModelState
from block_recurrent.typing import Key, Params, Rows, Tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that the next step depends on, except its batch, which is a function of `step`.

    Attributes:
        step: () int32, steps taken.
        params: nested dictionaries of float32 arrays.
        opt_state: the optimizer's.
        model_state: caches and recurrent states of the training rows.
        dropout_key: never changes; each step folds its number in.
    """

    step: Int[Array, ""]
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
    start_of_document: Rows


def init_train_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, *, seed: int, batch_size: int
) -> TrainState:
    """The state before the first step."""
    params_key, dropout_key = jax.random.split(jax.random.key(seed))
    params = init_params(config, params_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
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
    config: ModelConfig, optimizer: optax.GradientTransformation, state: TrainState, batch: SegmentBatch
) -> tuple[TrainState, dict[str, Array]]:
    """Takes a step on the mean loss of the batch's scored tokens.

    The official code steps on the sum; Adafactor's updates do not depend on that factor.

    Returns:
        The next state, and float32 scalars: `nats` and `tokens` (sums over the batch) and `gradient_norm`.
    """

    def loss(params: Params) -> tuple[Array, tuple[Array, ModelState]]:
        key = jax.random.fold_in(state.dropout_key, state.step)
        nats, model_state = _weighted_nats(config, params, state.model_state, batch, _if_used(config, key))
        return jnp.sum(nats) / jnp.maximum(jnp.sum(batch.weights), 1), (jnp.sum(nats), model_state)

    (_, (nats, model_state)), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    metrics = {"nats": nats, "tokens": jnp.sum(batch.weights), "gradient_norm": optax.tree.norm(gradients)}
    params: Any = optax.apply_updates(state.params, updates)
    next_state = TrainState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        model_state=model_state,
        dropout_key=state.dropout_key,
    )
    return next_state, metrics


def eval_step(
    config: ModelConfig, params: Params, state: ModelState, batch: SegmentBatch
) -> tuple[ModelState, Float[Array, "B"]]:
    """Runs a segment without dropout.

    Returns:
        The memory after the segment, and each row's nats summed over its scored tokens.
    """
    nats, state = _weighted_nats(config, params, state, batch, None)
    return state, jnp.sum(nats, axis=1)


def _weighted_nats(
    config: ModelConfig, params: Params, state: ModelState, batch: SegmentBatch, dropout_key: Key | None
) -> tuple[Float[Array, "B T"], ModelState]:
    output = apply(
        config, params, batch.tokens, state, start_of_document=batch.start_of_document, dropout_key=dropout_key
    )
    return cross_entropy(output.logits, batch.targets) * batch.weights, output.state


def _if_used(config: ModelConfig, key: Any) -> Any:
    return key if config.dropout_rate or config.attention_dropout_rate else None
