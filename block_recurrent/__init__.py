"""Block-Recurrent Transformers (Hutchins et al., NeurIPS 2022, arXiv:2203.07852) in JAX and Flax.

Public names are imported on first use, so importing the package loads neither JAX nor TensorFlow.
"""

from importlib import metadata

from etils import epy

from block_recurrent.jaxlib_guard import switch_off_wrong_fusions

__version__ = metadata.version("block-recurrent")
switch_off_wrong_fusions()

with epy.lazy_api_imports(globals()):
    from block_recurrent.config import (
        DataConfig,
        EvaluationConfig,
        MeshConfig,
        ModelConfig,
        OptimizerConfig,
        PrepareConfig,
        RunConfig,
        TrainConfig,
    )
    from block_recurrent.errors import InputError
    from block_recurrent.generation.decode_state import DecodeState
    from block_recurrent.generation.generator import Generator
    from block_recurrent.generation.sampling import Sampling
    from block_recurrent.model.language_model import (
        BlockRecurrentLM,
        ModelOutput,
        apply,
        init_params,
        init_state,
    )
    from block_recurrent.model.language_model import (
        ModelOutput as Output,  # the name of 0.1.0
    )
    from block_recurrent.model.state import LayerState, ModelState
    from block_recurrent.training.saved_run import SavedRun

__all__ = [
    "BlockRecurrentLM",
    "DataConfig",
    "DecodeState",
    "EvaluationConfig",
    "Generator",
    "InputError",
    "LayerState",
    "MeshConfig",
    "ModelConfig",
    "ModelOutput",
    "ModelState",
    "OptimizerConfig",
    "Output",
    "PrepareConfig",
    "RunConfig",
    "Sampling",
    "SavedRun",
    "TrainConfig",
    "apply",
    "init_params",
    "init_state",
]
