"""Weights & Biases (extra `wandb`), for `train --tracker wandb`."""

import contextlib
import dataclasses
import importlib
import os
from typing import Any

from etils import epath

from block_recurrent.config import RunConfig
from block_recurrent.files import is_remote, write_whole
from block_recurrent.registry import TRACKERS

_RUN_FILE = "wandb_run"  # in the workdir: the id of the run, so that a run which continues has one entry
_PROJECT = "block-recurrent"  # unless WANDB_PROJECT is set


@TRACKERS.register("wandb")
class WandbTracker:
    """Writes metrics as `GROUP/NAME` over the step, and the configuration of the run.

    The environment decides everything else: `WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_API_KEY`, and `WANDB_MODE=offline`
    for files without a network. A run that continues from a checkpoint keeps its entry; steps after that checkpoint
    are written a second time.
    """

    def __init__(self, run: RunConfig, workdir: epath.Path):
        wandb: Any = importlib.import_module("wandb")
        known = workdir / _RUN_FILE
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=workdir.name,
            id=known.read_text().strip() if known.exists() else None,
            resume="allow",
            dir=None if is_remote(workdir) else str(workdir),
            config=dataclasses.asdict(run),
            settings=wandb.Settings(console="off"),
        )
        self._run.define_metric("*", step_metric="step")
        with contextlib.suppress(OSError):  # a full disk: the next start has an entry of its own
            write_whole(known, f"{self._run.id}\n")

    def write(self, step: int, group: str, values: dict[str, Any]) -> None:
        """See `Tracker.write`."""
        self._run.log({"step": step} | {f"{group}/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """See `Tracker.close`."""
        self._run.finish()
