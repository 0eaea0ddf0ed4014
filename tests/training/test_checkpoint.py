"""Checkpoints of processes with another JAX_ENABLE_X64; failed restores."""

import contextlib
import gc
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.training.checkpoint import Checkpoints
from block_recurrent.training.step import TrainState


def state(dtype: str) -> TrainState:
    params = {"kernel": jnp.arange(6, dtype=dtype).reshape(2, 3) / 4, "scale": jnp.ones(3, dtype)}
    return TrainState(
        step=jnp.int32(5),
        skipped=jnp.int32(0),
        params=params,
        opt_state=(jnp.full(3, 0.5, dtype), jnp.int32(5)),
        model_state={},  # pyright: ignore[reportArgumentType]
        dropout_key=jax.random.key(3),
    )


@contextlib.contextmanager
def x64(enabled: bool):
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", enabled)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("saved", ["float64", "float32"])
@pytest.mark.parametrize("restored", ["float64", "float32"])
def test_a_checkpoint_does_not_depend_on_enable_x64(tmp_path: Path, saved: str, restored: str):
    folder = epath.Path(tmp_path)
    with x64(saved == "float64"), Checkpoints(folder, keep=1) as checkpoints:
        assert checkpoints.save(5, state(saved))
    with x64(restored == "float64"), Checkpoints(folder) as checkpoints:
        read: Any = checkpoints.restore(state(restored)).state
        assert read.params["kernel"].dtype == read.opt_state[0].dtype == restored
        np.testing.assert_array_equal(read.params["kernel"], np.arange(6).reshape(2, 3) / 4)
        assert int(read.step) == 5
        np.testing.assert_array_equal(jax.random.key_data(read.dropout_key), jax.random.key_data(jax.random.key(3)))
    assert jax.config.values["jax_enable_x64"] is False


class Store:
    """Has a coroutine with the name of orbax's, which appears in the warning."""

    async def _get_array_metadatas(self) -> None:
        pass


def test_a_coroutine_of_a_failed_restore_prints_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Orbax leaves a coroutine that it never started, if the first array's file is read soon enough."""
    left = []

    def read(*_: Any) -> Any:
        left.append(Store()._get_array_metadatas())
        raise ValueError("truncated")

    with Checkpoints(epath.Path(tmp_path), keep=1) as checkpoints:
        assert checkpoints.save(5, state("float32"))
        checkpoints.wait()
        monkeypatch.setattr(checkpoints, "_read", read)
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            with pytest.raises(InputError, match="cannot be read: truncated"):
                checkpoints.restore(state("float32"))
            left.clear()
            gc.collect()
    assert shown == []
