"""Block-Recurrent Transformers (Hutchins et al., NeurIPS 2022, arXiv:2203.07852) in JAX and Flax.

The names below are resolved when they are first used, so importing the package loads neither jax nor TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from block_recurrent.config import ModelConfig
    from block_recurrent.errors import InputError
    from block_recurrent.generation.generator import Generator
    from block_recurrent.generation.sampling import Sampling
    from block_recurrent.model.language_model import BlockRecurrentLM, Output, apply, init_params, init_state
    from block_recurrent.model.state import LayerState, ModelState

_HOMES = {
    "BlockRecurrentLM": "model.language_model",
    "Generator": "generation.generator",
    "InputError": "errors",
    "LayerState": "model.state",
    "ModelConfig": "config",
    "ModelState": "model.state",
    "Output": "model.language_model",
    "Sampling": "generation.sampling",
    "apply": "model.language_model",
    "init_params": "model.language_model",
    "init_state": "model.language_model",
}

__all__ = [
    "BlockRecurrentLM",
    "Generator",
    "InputError",
    "LayerState",
    "ModelConfig",
    "ModelState",
    "Output",
    "Sampling",
    "apply",
    "init_params",
    "init_state",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
