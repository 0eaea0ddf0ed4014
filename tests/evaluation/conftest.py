"""A split of a few short documents, a perturbed recurrent model, and passes over the split."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath

from block_recurrent.config import ModelConfig
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.evaluation.passes import ResumablePasses, Shape
from block_recurrent.evaluation.scorer import Placement, ScoringMethod
from block_recurrent.evaluation.token_losses import TokenLosses
from tests.data.conftest import model_path, pieces, write_store  # noqa: F401
from tests.support.architectures import RECURRENT, perturbed_params

TEXTS = [
    "The bridge over the river was old.",
    "x",
    "Anna met Boris; Boris met Anna. Anna left, and nobody saw Boris again.",
    "Zürich, naïve café: 12 times 12 is 144.",
    "ab",
    "Twelve words are in this line, and each of them counts as one.",
]


def byte_model(name: str) -> ModelConfig:
    return dataclasses.replace(RECURRENT[name], vocab_size=260)


@pytest.fixture(scope="session")
def split(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return write_store(tmp_path_factory.mktemp("split") / "test", TEXTS)


@pytest.fixture(scope="session")
def model() -> ModelConfig:
    return byte_model("fixed_skip")


@pytest.fixture(scope="session")
def params(model: ModelConfig) -> dict[str, Any]:
    return perturbed_params(model)


def one_pass(
    folder: Path,
    method: ScoringMethod,
    params: Any,
    store: TokenStore,
    *,
    batch_size: int = 3,
    segment_length: int = 16,
    devices: int = 1,
) -> TokenLosses:
    """Returns the token losses of a whole pass."""
    import jax

    with ResumablePasses(epath.Path(folder), {}).locked() as passes:
        shape = Shape(batch_size=batch_size, segment_length=segment_length)
        losses = passes.run(method, params, store, shape, placement=Placement(jax.devices()[:devices]))
        return TokenLosses(np.array(losses.values), losses.starts)
