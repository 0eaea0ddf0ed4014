"""Strict harness: 8 virtual CPU devices, no silent rank promotion, array shapes checked at every call."""

import os
import sys
from collections.abc import Iterator

# Before jax is imported anywhere.
os.environ["JAX_PLATFORMS"] = "cpu"
# The suite's time is compilation of small programs; unoptimised code computes the same numbers.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",  # a train step compiles in half the CPU time
    ]
)
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

import tests.support.shape_checks  # noqa: F401  # the hook looks it up by name

# Folders and modules whose annotations are checked: everything that computes with arrays in a jitted program.
_GENERATION = ("decode", "decode_state", "decode_step", "prefill", "sampling", "sampling_loop", "scoring")
_CHECKED = ("model", *(f"generation.{name}" for name in _GENERATION), "training.step")
install_import_hook([f"block_recurrent.{name}" for name in _CHECKED], "tests.support.shape_checks.check_call")

# The time of an example depends on the load of the machine: benchmarks measure time, properties do not.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="module", autouse=True)
def _free_programs():
    """Frees the compiled programs of each test file; together they would take more than 3 GB for each worker."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the prepared store of `tests.support.workdirs`; tests must not write to it."""
    from tests.support.workdirs import prepare_store  # after the hook above

    return prepare_store(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="session")
def byte_run(store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the workdir of an untrained byte model on `store_folder`; tests must not write to it."""
    from tests.support.workdirs import run_config, save_untrained

    return save_untrained(run_config(store_folder), tmp_path_factory.mktemp("byte_run"))


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Returns headless Chromium, for tests marked `browser`."""
    from tests.support.browser import chromium

    with chromium() as started:
        yield started
