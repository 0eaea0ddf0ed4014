import jax.numpy as jnp
import numpy as np

from block_recurrent.model.ops.blocks import half_blocks, merge_blocks, split_blocks, with_previous_block


def test_each_block_follows_its_predecessor():
    x = jnp.arange(2 * 6).reshape(2, 6)
    cache = -jnp.ones((2, 2), jnp.int32)
    pairs = with_previous_block(split_blocks(x, 2), cache)
    np.testing.assert_array_equal(pairs[0], [[-1, -1, 0, 1], [0, 1, 2, 3], [2, 3, 4, 5]])
    np.testing.assert_array_equal(pairs[1], [[-1, -1, 6, 7], [6, 7, 8, 9], [8, 9, 10, 11]])
    np.testing.assert_array_equal(merge_blocks(split_blocks(x, 2)), x)


def test_each_half_of_a_block_sees_the_window_before_it():
    x = jnp.arange(8).reshape(1, 8)
    pairs = with_previous_block(split_blocks(x, 4), jnp.array([[-4, -3, -2, -1]]))
    expected = [[-4, -3, -2, -1, 0, 1], [-2, -1, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7]]
    np.testing.assert_array_equal(half_blocks(pairs), [expected])
