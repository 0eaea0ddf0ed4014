import jax.numpy as jnp
import numpy as np

from block_recurrent.model.ops.blocks import merge_blocks, split_blocks, with_previous_block


def test_each_block_follows_its_predecessor():
    x = jnp.arange(2 * 6).reshape(2, 6)
    cache = -jnp.ones((2, 2), jnp.int32)
    pairs = with_previous_block(split_blocks(x, 2), cache)
    np.testing.assert_array_equal(pairs[0], [[-1, -1, 0, 1], [0, 1, 2, 3], [2, 3, 4, 5]])
    np.testing.assert_array_equal(pairs[1], [[-1, -1, 6, 7], [6, 7, 8, 9], [8, 9, 10, 11]])
    np.testing.assert_array_equal(merge_blocks(split_blocks(x, 2)), x)
