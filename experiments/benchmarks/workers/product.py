"""Measures a product of two 2048 x 2048 float32 matrices: the reference for rates of operations."""

import jax
from turn import job, take_turns

SIZE = 2048


def main() -> None:
    job()
    x = jax.random.normal(jax.random.key(0), (SIZE, SIZE))
    product = jax.jit(lambda a, b: a @ b)
    take_turns(lambda: product(x, x).block_until_ready(), flops=2 * SIZE**3, jax=jax.__version__)


if __name__ == "__main__":
    main()
