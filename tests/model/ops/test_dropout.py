import jax
import jax.numpy as jnp
import numpy as np

from block_recurrent.model.ops.dropout import dropout_mask, tiled_dropout


def test_masks_are_zero_at_the_given_rate_and_one_over_keep_elsewhere():
    mask = np.asarray(dropout_mask(jax.random.key(0), 0.2, (100, 1000)))
    np.testing.assert_allclose(np.unique(mask), [0, 1 / 0.8], rtol=1e-6)
    assert abs((mask == 0).mean() - 0.2) < 0.01


def test_the_mask_repeats_every_128_tokens_in_all_rows():
    x = jnp.ones((2, 300, 4))
    dropped = np.asarray(tiled_dropout(x, 0.5, jax.random.key(1)))
    np.testing.assert_array_equal(dropped[0], dropped[1])
    np.testing.assert_array_equal(dropped[:, :128], dropped[:, 128:256])
    np.testing.assert_array_equal(dropped[:, :44], dropped[:, 256:])
    assert len(np.unique(dropped[0, :128], axis=0)) > 10


def test_no_key_or_no_rate_means_no_dropout():
    x = jnp.ones((1, 5, 4))
    assert tiled_dropout(x, 0.5, None) is x
    assert tiled_dropout(x, 0.0, jax.random.key(0)) is x
