"""Frozen, keyword-only, validated configuration.

Each class checks its fields when an instance is created, so mistakes are reported before long work starts. The classes
are plain dataclasses without gin; `cli/gin_files.py` binds them from gin files.
"""

from block_recurrent.config.data import DataConfig, PrepareConfig
from block_recurrent.config.evaluation import EvaluationConfig
from block_recurrent.config.model import Layer, ModelConfig, Purpose, fields_that_may_differ
from block_recurrent.config.run import RunConfig
from block_recurrent.config.training import MeshConfig, OptimizerConfig, TrainConfig

__all__ = [
    "DataConfig",
    "EvaluationConfig",
    "Layer",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PrepareConfig",
    "Purpose",
    "RunConfig",
    "TrainConfig",
    "fields_that_may_differ",
]
