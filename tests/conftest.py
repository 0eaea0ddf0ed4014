"""Strict harness: 8 virtual CPU devices, no silent rank promotion, shapes checked at every call of the model."""

import os

# Before jax is imported anywhere.
os.environ["JAX_PLATFORMS"] = "cpu"
# The suite's time is compilation of small programs; unoptimised code computes the same numbers.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

_CHECKED = ("model.ops", "model.layers", "model.loss")
install_import_hook([f"block_recurrent.{name}" for name in _CHECKED], "beartype.beartype")

# How fast an example runs depends on what else the machine does; benchmarks measure time, properties do not.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared store of `tests.support.workdirs`; read only."""
    from tests.support.workdirs import prepare_store  # after the hook above

    return prepare_store(tmp_path_factory.mktemp("texts"))
