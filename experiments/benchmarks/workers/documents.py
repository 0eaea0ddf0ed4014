"""Measures what a token costs in documents of several lengths, all read by one process in segments of one length.

In each round every document length reads the same number of tokens: one document of the longest length, and others as
often as they fit into it. The lengths alternate after every segment, so that a slow moment counts for all alike.
"""

import functools
import sys
import time

import jax
from step import batch, compiled, step
from turn import answer, job

from block_recurrent import ModelConfig, init_params, init_state


def main() -> None:
    task = job()
    config, length = ModelConfig(**task["model"]), task["segment_length"]
    segments = [document // length for document in task["documents"]]
    params = jax.jit(lambda: init_params(config, jax.random.key(0)))()
    inputs, start = batch(config, 1, length), init_state(config, params, 1)
    program, _ = compiled(functools.partial(step.eval_step, config), params, start, inputs)

    def read_round() -> list[float]:
        """Returns the seconds of a token for each document length."""
        states, seconds = [start] * len(segments), [0.0] * len(segments)
        for position in range(max(segments)):
            for turn in range(len(segments)):
                index = (turn + position) % len(segments)  # each goes first equally often
                before = time.perf_counter()
                state = start if position % segments[index] == 0 else states[index]
                states[index], *sums = program(params, state, inputs)
                jax.block_until_ready((states[index], sums))
                seconds[index] += time.perf_counter() - before
        return [value / (max(segments) * length) for value in seconds]

    read_round()
    answer({"tokens": length * max(segments), "jax": jax.__version__})
    for _ in sys.stdin:
        per_token = read_round()
        answer({"seconds": sum(per_token), "per_token": per_token})


if __name__ == "__main__":
    main()
