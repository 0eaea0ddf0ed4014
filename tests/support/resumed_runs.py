"""A run that is interrupted and continued, next to the same run without an interruption."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from block_recurrent.config import RunConfig
from block_recurrent.training.checkpoint import Checkpoints
from block_recurrent.training.loop import train
from block_recurrent.training.metric_writer import read_metrics
from block_recurrent.training.step import TrainState, abstract_train_state
from tests.support.workdirs import QUIET


def assert_resumed_equals_whole(run: RunConfig, folder: Path) -> tuple[TrainState, list[dict[str, Any]]]:
    """Trains a run at once, in `whole`, and in two parts, in `parts`; compares the bits of state and metrics.

    Returns:
        The last state and the lines of group `train`.
    """
    train(run, epath.Path(folder / "whole"), QUIET)
    half = dataclasses.replace(run, train=dataclasses.replace(run.train, num_steps=run.train.num_steps // 2))
    for part in (half, run):
        train(part, epath.Path(folder / "parts"), QUIET)
    (state, lines), (expected, whole) = (_result(run, folder / name) for name in ("parts", "whole"))
    for part in ("params", "opt_state", "model_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, part), getattr(expected, part))
    assert lines == whole
    return state, lines


def _result(run: RunConfig, workdir: Path) -> tuple[TrainState, list[dict[str, Any]]]:
    with Checkpoints(epath.Path(workdir)) as checkpoints:
        state = checkpoints.restore(abstract_train_state(run)).state
    return state, [line for line in read_metrics(epath.Path(workdir)) if line["group"] == "train"]
