"""FLOPs of the matrix products in a traced program, loops included."""

import math

import jax
import jax.numpy as jnp

from block_recurrent.config import ModelConfig
from block_recurrent.model.language_model import abstract_params, apply, init_state


def product_flops(jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            size = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * size * math.prod(equation.outvars[0].aval.shape)
            continue
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * product_flops(inner)
    return total


def program_flops(config: ModelConfig, length: int) -> float:
    """Returns the FLOPs of the forward pass of a segment, per token."""
    params = abstract_params(config)
    state = jax.eval_shape(lambda params: init_state(config, params, 1), params)
    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
    program = jax.make_jaxpr(lambda *arguments: apply(config, *arguments))(params, tokens, state)
    return product_flops(program.jaxpr) / length
