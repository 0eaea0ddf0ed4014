"""Pure functions for one training step and one evaluation step."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from block_recurrent.config import ModelConfig, RunConfig
from block_recurrent.model.language_model import bind, init_params, init_state, layer_name
from block_recurrent.model.layers.cells import GateMeans
from block_recurrent.model.loss import chunked_cross_entropy
from block_recurrent.model.state import ModelState
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.typing import Key, Params

_STATE_PASSING = 2**32 - 1  # number of a random stream next to those of the steps, which are below 2**31


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that the next step depends on, except its batch, which is a function of `step`.

    Attributes:
        step: () int32, number of steps taken.
        skipped: () int32, number of steps that changed nothing because a loss or gradient was not finite.
        params: nested dictionaries of float32 arrays.
        opt_state: the optimizer state.
        model_state: caches and recurrent states of the training rows.
        dropout_key: constant; each step folds its number into it.
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
    """Input of one step: one segment of each row, or K consecutive segments on a second axis.

    Attributes:
        tokens: (B, T) or (B, K, T) int32.
        targets: like `tokens`, the next tokens.
        weights: like `tokens`, float32, 1 where the target is scored, 0 on padding.
        start_of_document: (B,) or (B, K) bool, segments that start a document.
        keep_recurrent: like `start_of_document`, segments that keep the recurrent states of the previous document if
            they start a document; None for no segment. Drawn by `train_step`.
    """

    tokens: Int[Array, "B *K T"]
    targets: Int[Array, "B *K T"]
    weights: Float[Array, "B *K T"]
    start_of_document: Bool[Array, "B *K"]
    keep_recurrent: Bool[Array, "B *K"] | None = None


@dataclasses.dataclass(frozen=True)
class Division:
    """Division of a step over the devices of a mesh. By default, XLA decides where it adds gradients.

    Attributes:
        gather: gathers sharded parameters for the forward pass; see `sharding.gather`.
        divide: computes gradients of each device's rows and adds them; see `row_gradients.add_once`.
        in_loops: applied to the parameters of each layer of a loop, inside the loop; see
            `row_gradients.added_in_loops`.
    """

    gather: Callable[[Params], Params] = lambda params: params
    divide: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda gradients_of: gradients_of
    in_loops: Callable[[Any], Any] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """Metrics of one training step; float32.

    Attributes:
        row_losses: (B,), sum of the token losses of each row.
        tokens: (), number of scored tokens of the batch.
        gradient_norm: (), norm of all gradients together.
        update_norm: (), norm of the optimizer's updates.
        param_norm: (), norm of the parameters before the step.
        state_norms: (), mean norm of a state vector after the last segment, by recurrent layer.
        gates: mean value of the gates over rows, blocks, states and channels, by recurrent layer.
        finite: () bool; if False, the step changed only `step` and `skipped`.
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
    """Returns the state before the first step; parameters are initialised at random unless passed."""
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


@functools.lru_cache(maxsize=8)
def abstract_train_state(run: RunConfig) -> TrainState:
    """Returns the shapes and dtypes of a run's state without computing it."""
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
    state_passing: float = 0.0,
    division: Division = Division(),
) -> tuple[TrainState, StepMetrics]:
    """Takes one step on the mean loss of the batch's scored tokens.

    The official code uses the sum of the losses; Adafactor's updates do not depend on that factor. If a loss or
    gradient is not finite, parameters, optimizer state and model state stay unchanged.

    Args:
        config: the model configuration.
        optimizer: from `make_optimizer`.
        state: the state before the step.
        batch: the batch; its number of rows is a multiple of `accumulate_steps`. With K segments of each row, gradients
            flow from segment to segment through recurrent states and caches (`TrainConfig.backprop_segments`).
        accumulate_steps: number of micro-batches that are computed one after another; their gradients are added.
        state_passing: see `TrainConfig.state_passing`.
        division: how the step is divided over devices.

    Returns:
        The next state and the metrics of the step.
    """
    key = jax.random.fold_in(state.dropout_key, state.step)
    batch = _with_kept_states(state, batch, state_passing)
    gradients, forward = _accumulate(config, state, batch, _if_used(config, key), accumulate_steps, division)
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
    """Scores a segment without dropout.

    Returns:
        The state after the segment, each row's sum of token losses, and each row's number of scored tokens.
    """
    scored = score_tokens(config, params, state, batch)
    return scored.state, jnp.sum(scored.losses, axis=1), jnp.sum(batch.weights, axis=1)


class ScoredTokens(NamedTuple):
    """Token losses of a segment.

    Attributes:
        losses: (B, T) float32, in nats; 0 where a target is not scored.
        state: the state after the segment.
        gates: as in `ModelOutput`.
    """

    losses: Float[Array, "B T"]
    state: ModelState
    gates: dict[str, GateMeans]


def score_tokens(
    config: ModelConfig,
    params: Params,
    state: ModelState,
    batch: SegmentBatch,
    dropout_key: Key | None = None,
    in_loops: Callable[[Any], Any] | None = None,
) -> ScoredTokens:
    """Computes the token losses of a segment, with the logits of `config.loss_chunk` tokens at a time.

    `in_loops` is that of `Division`.
    """
    model = bind(config, params, in_loops)
    hidden, state, gates = model.hidden_states(
        batch.tokens,
        state,
        start_of_document=batch.start_of_document,
        keep_recurrent=batch.keep_recurrent,
        dropout_key=dropout_key,
    )
    losses = chunked_cross_entropy(model.logits, hidden, batch.targets, config.loss_chunk)
    return ScoredTokens(losses * batch.weights, state, gates)


def _with_kept_states(state: TrainState, batch: SegmentBatch, probability: float) -> SegmentBatch:
    """Draws the segments that keep the recurrent states of the previous document, if any may.

    The draw is a function of the run's seed, the step, the row and the segment; it does not depend on the sharding.
    """
    if not probability:
        return batch
    key = jax.random.fold_in(jax.random.fold_in(state.dropout_key, _STATE_PASSING), state.step)
    keep = jax.random.bernoulli(key, probability, batch.start_of_document.shape)
    return dataclasses.replace(batch, keep_recurrent=keep)


class _Forward(NamedTuple):
    row_losses: Float[Array, "B"]
    model_state: ModelState
    gates: dict[str, GateMeans]


def _forward(
    config: ModelConfig,
    params: Params,
    state: ModelState,
    batch: SegmentBatch,
    dropout_key: Key | None,
    in_loops: Callable[[Any], Any] | None,
) -> _Forward:
    if batch.tokens.ndim == 2:
        scored = score_tokens(config, params, state, batch, dropout_key, in_loops)
        return _Forward(jnp.sum(scored.losses, axis=1), scored.state, scored.gates)
    return _forward_segments(functools.partial(_forward, config, params, in_loops=in_loops), state, batch, dropout_key)


def _forward_segments(
    forward: Callable[..., _Forward], state: ModelState, batch: SegmentBatch, dropout_key: Key | None
) -> _Forward:
    """Runs the K segments of each row, one after another.

    The backward pass starts from the model states between the segments and computes each segment again, so that the
    intermediate results of one segment are in memory at a time.
    """

    def segment(state: ModelState, inputs: tuple[SegmentBatch, Array]) -> tuple[ModelState, tuple[Array, Any]]:
        batch, number = inputs
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, number)
        row_losses, state, gates = forward(state, batch, key)
        return state, (row_losses, gates)

    numbers = jnp.arange(batch.tokens.shape[1])
    in_order = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batch)
    # The loop keeps the compiler from computing a segment only once, so `checkpoint` need not (`prevent_cse`).
    step = jax.checkpoint(segment, prevent_cse=False)
    state, (row_losses, gates) = jax.lax.scan(step, state, (in_order, numbers))
    return _Forward(jnp.sum(row_losses, axis=0), state, jax.tree.map(lambda x: jnp.mean(x, axis=0), gates))


def _accumulate(
    config: ModelConfig,
    state: TrainState,
    batch: SegmentBatch,
    dropout_key: Key | None,
    parts: int,
    division: Division,
) -> tuple[Any, _Forward]:
    """Returns the gradients of the mean loss and the results of the forward pass, computed in `parts` micro-batches."""
    total = jnp.maximum(jnp.sum(batch.weights), 1)

    def gradients_of(params: Params, rows: Any, total: Array, dropout_key: Key | None) -> tuple[Any, _Forward]:
        return _gradients(config, params, rows, total, dropout_key, parts, division)

    return division.divide(gradients_of)(state.params, (state.model_state, batch), total, dropout_key)


def _gradients(
    config: ModelConfig,
    params: Params,
    rows: tuple[ModelState, SegmentBatch],
    total: Float[Array, ""],
    dropout_key: Key | None,
    parts: int,
    division: Division,
) -> tuple[Any, _Forward]:
    """Returns the gradients of the sum of some rows' losses over `total`, and the results of their forward pass."""

    def loss(params: Params, model_state: ModelState, batch: SegmentBatch) -> tuple[Array, _Forward]:
        # All rows share the dropout masks, so every micro-batch uses the same key.
        forward = _forward(config, division.gather(params), model_state, batch, dropout_key, division.in_loops)
        return jnp.sum(forward.row_losses) / total, forward

    gradient = jax.grad(loss, has_aux=True)
    if parts == 1:
        return gradient(params, *rows)

    def step(total: Any, rows: tuple[ModelState, SegmentBatch]) -> tuple[Any, _Forward]:
        gradients, forward = gradient(params, *rows)
        return jax.tree.map(jnp.add, total, gradients), forward

    # Part m has rows m, m + parts, ...: every device has equally many rows of each part.
    def split(x: Array) -> Array:
        return jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)

    def join(x: Array) -> Array:
        return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])

    zeros = jax.tree.map(jnp.zeros_like, params)
    gradients, forward = jax.lax.scan(step, zeros, jax.tree.map(split, rows))
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
