"""Measures a train step, an evaluation step, prefill or decoding of this project, in today's checkout or an older one.

The checkout is the one on PYTHONPATH. Modules that have moved since commit c275696 are looked up under both names.
"""

import functools
import importlib
import inspect
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from turn import job, take_turns

from block_recurrent import ModelConfig, Sampling, init_params, init_state
from block_recurrent.config import OptimizerConfig
from block_recurrent.data.vocabulary import ByteVocabulary

TOKENS_PER_CALL = 64  # of the decode loop


def moved(*names: str) -> Any:
    """Returns the first of these modules that exists."""
    for name in names:
        try:
            return importlib.import_module(f"block_recurrent.{name}")
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(f"none of {names}")


step = moved("training.step", "train_step")
make_optimizer = moved("training.optimizer", "optimizer").make_optimizer


def batch(config: ModelConfig, rows: int, length: int) -> Any:
    tokens = jax.random.randint(jax.random.key(0), (rows, length + 1), 0, config.vocab_size)
    return step.SegmentBatch(
        tokens=tokens[:, :-1],
        targets=tokens[:, 1:],
        weights=jnp.ones((rows, length)),
        start_of_document=jnp.zeros(rows, bool),
    )


def _compiler_options(**arguments: Any) -> dict[str, Any]:
    """Returns the options with which the commands compile their steps."""
    function = moved("parallel.compiler_options", "chips").compiler_options
    known = inspect.signature(function).parameters
    return function(jax.default_backend(), **{name: value for name, value in arguments.items() if name in known})


def compiled(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the compiled program and the facts about it; a function with donated arguments computes gradients."""
    start = time.perf_counter()
    settings = _compiler_options(forward_only="donate_argnums" not in options)
    program = jax.jit(function, compiler_options=settings, **options).lower(*arguments).compile()
    memory = program.memory_analysis()
    assert memory is not None
    return program, {
        "compile_seconds": time.perf_counter() - start,
        "peak_bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
    }


def train_step(config: ModelConfig, rows: int, length: int) -> tuple[Callable[[], object], dict[str, Any]]:
    optimizer = make_optimizer(OptimizerConfig(), 1000)
    state = jax.jit(lambda: step.init_train_state(config, optimizer, seed=0, batch_size=rows))()
    inputs = batch(config, rows, length)
    program, facts = compiled(functools.partial(step.train_step, config, optimizer), state, inputs, donate_argnums=0)

    def run() -> None:
        nonlocal state
        state, metrics = program(state, inputs)
        jax.block_until_ready((state, metrics))

    return run, facts


def eval_step(config: ModelConfig, rows: int, length: int) -> tuple[Callable[[], object], dict[str, Any]]:
    params = jax.jit(lambda: init_params(config, jax.random.key(0)))()
    state = init_state(config, params, rows)
    inputs = batch(config, rows, length)
    program, facts = compiled(functools.partial(step.eval_step, config), params, state, inputs)
    return lambda: jax.block_until_ready(program(params, state, inputs)), facts


def _generator(config: ModelConfig, length: int) -> Any:
    params = jax.jit(lambda: init_params(config, jax.random.key(0)))()
    return moved("generation.generator", "generator").Generator(config, params, ByteVocabulary(), segment_length=length)


def prefill(config: ModelConfig, rows: int, length: int) -> tuple[Callable[[], object], dict[str, Any]]:
    generator = _generator(config, length)
    read = getattr(generator, "prefill", None) or generator.read
    prompts = ["x" * length] * rows
    start = time.perf_counter()
    jax.block_until_ready(read(prompts))
    facts = {"compile_seconds": time.perf_counter() - start}
    return lambda: jax.block_until_ready(read(prompts)), facts


def decode(config: ModelConfig, rows: int, length: int) -> tuple[Callable[[], object], dict[str, Any]]:
    generator = _generator(config, length)
    read = getattr(generator, "prefill", None) or generator.read
    state = read(["x" * (config.window_length or length)] * rows)
    loop = moved("generation.sampling_loop", "decode_loop")
    sample = getattr(loop, "sample_tokens", None) or loop.decode_tokens
    keys = moved("generation.sampling", "sampling").row_keys(0, list(range(rows)))
    counts = np.full(rows, TOKENS_PER_CALL, np.int32)
    static = (config, Sampling(), TOKENS_PER_CALL, 256)
    program = jax.jit(sample, static_argnums=(0, 1, 2, 3))
    start = time.perf_counter()
    jax.block_until_ready(program(*static, generator.params, state, keys, counts))
    facts = {"compile_seconds": time.perf_counter() - start}

    def run() -> None:
        after = state
        for _ in range(length // TOKENS_PER_CALL):
            sampled, after = program(*static, generator.params, after, keys, counts)
            np.asarray(sampled.tokens)

    return run, facts


def traced(run: Callable[[], object], folder: str) -> None:
    """Runs a step with JAX's profiler."""
    with jax.profiler.trace(folder):
        run()


def main() -> None:
    task = job()
    config = ModelConfig(**task["model"])
    rows, length = task["batch_size"], task["segment_length"]
    run, facts = TASKS[task["task"]](config, rows, length)
    if "trace" in task:
        run = functools.partial(traced, run, task["trace"])
    take_turns(run, tokens=rows * length, jax=jax.__version__, **facts)


TASKS = {"train_step": train_step, "eval_step": eval_step, "prefill": prefill, "decode": decode}

if __name__ == "__main__":
    main()
