"""Measures generation on the laptop model against its bounds: `make bench-generate`.

Measures speed and memory after short and long contexts, the decode loop against the bare decode step, prefill against
evaluation, and batches. Writes the measurements to a JSON file and exits with 1 if a bound is missed. Takes about 3
minutes on 2 cores.
"""

import argparse
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from block_recurrent.cli import gin_files
from block_recurrent.config import ModelConfig
from block_recurrent.data.vocabulary import ByteVocabulary
from block_recurrent.generation.decode_state import DecodeState
from block_recurrent.generation.decode_step import decode_step
from block_recurrent.generation.generator import TOKENS_PER_CALL, Generator
from block_recurrent.generation.sampling import Sampling, row_keys
from block_recurrent.generation.sampling_loop import sample_tokens
from block_recurrent.model.language_model import init_params, init_state
from block_recurrent.training.step import SegmentBatch, eval_step
from experiments.benchmarks.benchmark import Result, judge, medians

SEGMENT = 512  # of the quickstart run
CONTEXTS = (1_000, 16_000, 256_000)
VOCABULARY = ByteVocabulary()


def laptop_generator() -> Generator:
    """Returns a generator with the quickstart's architecture and untrained parameters, which have the same speed."""
    gin_files.parse(["gin/models/laptop.gin"], [f"ModelConfig.vocab_size={VOCABULARY.table_size}"])
    config = gin_files.configured(ModelConfig)
    return Generator(config, init_params(config, jax.random.key(0)), VOCABULARY, segment_length=SEGMENT)


def resident_megabytes() -> float:
    """Returns the resident memory of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def decoder(generator: Generator, state: DecodeState, num_tokens: int) -> Callable[[], object]:
    """Returns a function that samples `num_tokens` in each row with the calls of `Generator.generate`."""
    rows = len(state.filled)
    run = jax.jit(sample_tokens, static_argnums=(0, 1, 2, 3))
    counts, keys = np.full(rows, TOKENS_PER_CALL, np.int32), row_keys(0, list(range(rows)))

    def run_calls() -> object:
        after = state
        for _ in range(num_tokens // TOKENS_PER_CALL):
            sampled, after = run(
                generator.config, Sampling(), TOKENS_PER_CALL, VOCABULARY.size, generator.params, after, keys, counts
            )
            np.asarray(sampled.tokens)
        return after

    return run_calls


def bench_contexts(generator: Generator) -> Iterator[Result]:
    text = "".join(map(chr, np.random.default_rng(0).integers(32, 127, max(CONTEXTS))))
    states, resident = {}, {}
    for context in CONTEXTS:
        states[context] = generator.prefill([text[:context]])
        decoder(generator, states[context], 512)()
        resident[context] = resident_megabytes()
    sizes = {sum(leaf.nbytes for leaf in jax.tree.leaves(state)) for state in states.values()}
    seconds = medians({context: decoder(generator, states[context], 512) for context in CONTEXTS})
    for context in CONTEXTS:
        rate = 512 / seconds[context]
        print(f"     after {context:,} tokens: {rate:,.0f} tokens/s; resident {resident[context]:,.0f} MB", flush=True)
    spread = max(seconds.values()) / min(seconds.values())
    yield Result("slowest against fastest of the three contexts", spread, "times", 1.1, at_least=False)
    yield Result("different sizes of the state", len(sizes), "", 1, at_least=False)
    growth = resident[max(CONTEXTS)] - resident[CONTEXTS[1]]
    yield Result("resident memory, 256,000 against 16,000 tokens", growth, "MB more", 16, at_least=False)


def bench_step(generator: Generator) -> Iterator[Result]:
    state = generator.prefill(["x" * 1000])
    step = jax.jit(decode_step, static_argnums=0, donate_argnums=2)
    copied = jax.tree.map(jnp.copy, state)
    token = np.array([100], np.int32)

    def bare() -> object:
        nonlocal copied
        for _ in range(512):
            copied = step(generator.config, generator.params, copied, token)
        return copied

    seconds = medians({"bare": bare, "loop": decoder(generator, state, 512)})
    print(
        f"     bare decode step {seconds['bare'] / 512 * 1e6:.0f} us, loop {seconds['loop'] / 512 * 1e6:.0f} us a token"
    )
    ratio = seconds["loop"] / seconds["bare"]
    yield Result("decode loop with sampling against the bare decode step", ratio, "times", 1.15, at_least=False)


def bench_prefill(generator: Generator) -> Iterator[Result]:
    length = 16 * SEGMENT
    text = "x" * length
    tokens = jnp.asarray(generator.encode(text)).reshape(1, -1, SEGMENT)
    evaluate = jax.jit(eval_step, static_argnums=0)
    ones, fresh = jnp.ones((1, SEGMENT)), jnp.zeros(1, bool)

    def score() -> object:
        state, sums = init_state(generator.config, generator.params, 1), None
        for n in range(tokens.shape[1]):
            batch = SegmentBatch(tokens=tokens[:, n], targets=tokens[:, n], weights=ones, start_of_document=fresh)
            state, *sums = evaluate(generator.config, generator.params, state, batch)
        return sums

    seconds = medians({"evaluation": score, "prefill": lambda: generator.prefill([text])})
    rates = {name: length / value for name, value in seconds.items()}
    print(f"     evaluation {rates['evaluation']:,.0f} tokens/s, prefill {rates['prefill']:,.0f} tokens/s", flush=True)
    share = rates["prefill"] / rates["evaluation"]
    yield Result("prefill against evaluation, one row", share, "times its speed", 0.85, at_least=True)


def bench_batch(generator: Generator) -> Iterator[Result]:
    states = {rows: generator.prefill(["x" * 1000] * rows) for rows in (1, 16)}
    seconds = medians({rows: decoder(generator, state, 128) for rows, state in states.items()})
    kernels = [leaf for leaf in jax.tree.leaves(generator.params["layers"]) if leaf.ndim == 2 and len(leaf) >= 128]

    @functools.partial(jax.jit, static_argnums=0)
    def products(rows: int, kernels: list[jax.Array]) -> jax.Array:
        def once(_: int, x: jax.Array) -> jax.Array:
            return x + sum(jnp.sum(x[:, :1] * jnp.ones((1, len(w))) @ w) for w in kernels)

        return jax.lax.fori_loop(0, 128, once, jnp.ones((rows, 1)))

    bare = medians({rows: functools.partial(products, rows, kernels) for rows in states})
    ratio, bare_ratio = 16 * seconds[1] / seconds[16], 16 * bare[1] / bare[16]
    print(f"     1 row {128 / seconds[1]:,.0f} tokens/s, 16 rows {16 * 128 / seconds[16]:,.0f} tokens/s", flush=True)
    print(f"     the bare matrix products of 16 rows: {bare_ratio:.1f} times the tokens/s of 1 row", flush=True)
    yield Result("tokens/s of 16 rows against 1", ratio, "times", 2, at_least=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures generation on the laptop model.")
    parser.add_argument("--output", default="experiments/benchmarks/results/generate.json")
    arguments = parser.parse_args()
    generator = laptop_generator()
    benches = (bench_contexts, bench_step, bench_prefill, bench_batch)
    results = itertools.chain.from_iterable(bench(generator) for bench in benches)
    judge(results, Path(arguments.output), jax=jax.__version__, device=jax.devices()[0].device_kind)


if __name__ == "__main__":
    main()
