import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.config import MeshConfig
from block_recurrent.parallel.sharding import make_mesh
from block_recurrent.training.checksum import checksums


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_every_flipped_bit_changes_it(dtype):
    random = np.random.default_rng(0)
    array = np.asarray(jnp.asarray(random.integers(0, 2, (3, 5)), dtype))
    expected = checksums({"a": array})
    for byte in range(0, array.nbytes, 3):
        for bit in range(1 if dtype == "bool" else 8):
            content = bytearray(array.tobytes())
            content[byte] ^= 1 << bit
            flipped = np.frombuffer(bytes(content), array.dtype).reshape(array.shape)
            assert checksums({"a": flipped}) != expected


def test_order_values_and_shape_change_it():
    a = jnp.arange(6.0)
    assert checksums({"a": a}) != checksums({"a": a[::-1]})
    assert checksums({"a": a}) != checksums({"a": jnp.zeros(6)})
    assert checksums({"a": jnp.zeros(6)}) != checksums({"a": jnp.zeros(5)})


def test_the_mesh_does_not_change_it_and_random_keys_have_one():
    mesh = make_mesh(MeshConfig(data=8))
    x = jax.random.normal(jax.random.key(0), (16, 4))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    assert checksums({"x": jax.device_put(x, rows)}) == checksums({"x": x})
    assert checksums({"k": jax.random.key(1)}) != checksums({"k": jax.random.key(2)})
