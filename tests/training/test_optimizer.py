import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from block_recurrent.config import OptimizerConfig
from block_recurrent.interop.meliad import convert_params, model_config
from block_recurrent.model.language_model import init_params
from block_recurrent.training.optimizer import make_optimizer, make_schedule
from block_recurrent.trees import named_leaves
from tests.support.architectures import RECURRENT

FIXTURES = Path(__file__).parents[1] / "fixtures"


def rates(steps: list[int], num_steps: int = 1000, **fields: Any) -> np.ndarray:
    schedule = make_schedule(OptimizerConfig(**fields), num_steps)
    return np.array([schedule(step) for step in steps])


@pytest.mark.parametrize(
    ("fields", "steps", "expected"),
    [
        ({"schedule": "rsqrt"}, [0, 500, 1000, 4000], [0, 0.5 / 1000**0.5, 1 / 1000**0.5, 1 / 4000**0.5]),
        ({"schedule": "rsqrt", "warmup_steps": 0}, [0, 100, 400], [0.1, 0.1, 0.05]),
        ({"schedule": "rsqrt", "max_rate": 0.02}, [1000, 10_000], [0.02, 0.01]),
        ({"schedule": "rsqrt_to_min", "warmup_steps": 100}, [100, 250, 1000], [0.001 * 10**0.5, 0.002, 0.001]),
        ({"schedule": "rsqrt_to_min", "warmup_steps": 0, "min_rate": 0.04}, [0, 1000], [0.05, 0.04]),
        ({"schedule": "cosine", "warmup_steps": 0}, [0, 500, 1000, 2000], [0.01, 0.0055, 0.001, 0.0005]),
        ({"schedule": "cosine", "warmup_steps": 0, "decay_steps": 500}, [250, 500, 1000], [0.0055, 0.001, 0.0005]),
        (
            {"schedule": "cosine", "warmup_steps": 0, "spike_rate": 0.04, "spike_steps": 100},
            [0, 50, 1000],
            [0.04, 0.02, 0.001],
        ),
        ({"schedule": "cosine", "warmup_steps": 500}, [0, 250, 500], [0, 0.00275, 0.0055]),
        ({"schedule": "linear", "warmup_steps": 0}, [0, 500, 1000, 3000], [0.01, 0.0055, 0.001, 0.00025]),
        ({"schedule": "exponential", "warmup_steps": 0}, [0, 500, 1000, 2000], [0.01, 0.1**2.5, 0.001, 0.0001]),
        ({"schedule": "constant", "warmup_steps": 10, "learning_rate": 2.0}, [0, 5, 99], [0, 0.01, 0.02]),
    ],
)
def test_schedules_pass_through_known_points(fields, steps, expected):
    np.testing.assert_allclose(rates(steps, **fields), expected, rtol=2e-5)


class NumpyAdafactor:
    """Adafactor for one leaf in float64: factored second moments, clipping, rate, parameter scale and momentum."""

    def __init__(self, parameter: np.ndarray):
        self.parameter = parameter.astype(np.float64)
        self.factored = parameter.ndim == 2 and min(parameter.shape) >= 128
        self.row = self.column = self.full = 0.0
        self.momentum = np.zeros_like(self.parameter)
        self.step = 0

    def update(self, gradient: np.ndarray, rate: float) -> None:
        self.step += 1
        decay = 1 - self.step**-0.8
        square = gradient.astype(np.float64) ** 2 + 1e-30
        if self.factored:
            self.row = decay * self.row + (1 - decay) * square.mean(axis=1)
            self.column = decay * self.column + (1 - decay) * square.mean(axis=0)
            moment = self.row[:, None] * self.column[None, :] / self.row.mean()
        else:
            self.full = decay * self.full + (1 - decay) * square
            moment = self.full
        update = gradient / np.sqrt(moment)
        update /= max(1.0, np.sqrt((update**2).mean()))
        update *= rate * max(np.sqrt((self.parameter**2).mean()), 1e-3)
        self.momentum = 0.9 * self.momentum + 0.1 * update
        self.parameter -= self.momentum


def test_three_steps_follow_the_equations():
    shapes = {"factored": (130, 140), "narrow": (130, 20), "vector": (7,)}
    keys = iter(jax.random.split(jax.random.key(0), 100))
    params: Any = {name: 0.1 * jax.random.normal(next(keys), shape) for name, shape in shapes.items()}
    config = OptimizerConfig(warmup_steps=2, max_rate=0.03)
    optimizer, schedule = make_optimizer(config, 10), make_schedule(config, 10)
    state = optimizer.init(params)
    expected = {name: NumpyAdafactor(np.asarray(leaf)) for name, leaf in params.items()}
    for step in range(3):
        gradients = {name: jax.random.normal(next(keys), shape) for name, shape in shapes.items()}
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name, leaf in expected.items():
            leaf.update(np.asarray(gradients[name]), float(schedule(step)))
            np.testing.assert_allclose(np.asarray(params[name]), leaf.parameter, rtol=0, atol=2e-6)


def test_three_steps_equal_optax_on_the_official_leaves():
    with np.load(FIXTURES / "lstm_dual_states_ne_window.npz") as archive:
        config = model_config(json.loads(str(archive["config.json"])))
        flat: Any = {name[6:]: jnp.asarray(archive[name]) for name in archive.files if name.startswith("param/")}
        gradients: Any = {name[5:]: jnp.asarray(archive[name]) for name in archive.files if name.startswith("grad/")}
    settings = OptimizerConfig(schedule="rsqrt", warmup_steps=1)
    official = optax.adafactor(
        lambda step: jnp.minimum(step, 1) / jnp.sqrt(jnp.maximum(step, 100.0)),
        decay_rate=0.8,
        momentum=0.9,
        weight_decay_rate=None,
        multiply_by_parameter_scale=True,
    )
    ours = make_optimizer(settings, 100)
    params, ours_state, official_state = convert_params(flat, config), None, official.init(flat)
    ours_state = ours.init(params)
    for step in range(3):
        factor = 1.0 + step  # other gradients in each step
        by_path: Any = {name: factor * gradient ** (1 + 2 * (step % 2)) for name, gradient in gradients.items()}
        official_updates, official_state = official.update(by_path, official_state, flat)
        flat = optax.apply_updates(flat, official_updates)
        updates, ours_state = ours.update(convert_params(by_path, config), ours_state, params)
        params = optax.apply_updates(params, updates)
        jax.tree.map(np.testing.assert_array_equal, params, convert_params(flat, config))


def three_updates(settings: OptimizerConfig, name: str) -> tuple[dict[str, Any], Any]:
    """Returns the updates of the third step, with momentum from two others, and the optimizer state."""
    params = init_params(RECURRENT[name], jax.random.key(0))
    optimizer = make_optimizer(settings, 10)
    updates, state = None, optimizer.init(params)
    for step in range(3):
        gradients = jax.tree.map(lambda leaf, step=step: jnp.cos(leaf * (step + 1)), params)
        updates, state = optimizer.update(gradients, state, params)
    return named_leaves(updates), state


@pytest.mark.parametrize("name", ["fixed_dual", "lstm_dual", "paper_lstm_skip"])
def test_the_multiplier_of_gate_biases_is_a_multiplier_of_their_learning_rate(name):
    def settings(**fields: Any) -> OptimizerConfig:
        return OptimizerConfig(schedule="constant", warmup_steps=2, **fields)

    updates, state = three_updates(settings(gate_rate_multiplier=30.0), name)
    as_today, state_today = three_updates(settings(), name)
    faster, _ = three_updates(settings(learning_rate=30.0), name)
    cells, gates = {"attention"} | ({"mlp"} if "dual" in name else set()), ("forget_gate/bias", "input_gate/bias")
    expected = {
        f"layers/layer_01/states/cell/{place}/gate/{bias}"
        for place in cells
        for bias in (gates if "lstm" in name else ("bias",))
    }
    assert {leaf for leaf in updates if np.any(updates[leaf] != as_today[leaf])} == expected
    for leaf in expected:
        np.testing.assert_allclose(updates[leaf], faster[leaf], rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state, state_today)  # the same tree: old checkpoints can be read


def test_a_multiplier_of_one_adds_no_operation():
    params = init_params(RECURRENT["lstm_dual"], jax.random.key(0))

    def program(optimizer: optax.GradientTransformation) -> str:
        return str(jax.make_jaxpr(lambda x: optimizer.update(x, optimizer.init(x), x))(params))

    settings = OptimizerConfig(gate_rate_multiplier=1.0)
    schedule = make_schedule(settings, 10)
    assert program(make_optimizer(settings, 10)) == program(
        optax.adafactor(schedule, decay_rate=0.8, momentum=0.9, multiply_by_parameter_scale=True)
    )
