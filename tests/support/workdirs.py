"""A tiny prepared store and tiny runs on it, for the tests of training, evaluation and the command line."""

import json
from pathlib import Path
from typing import Any

from etils import epath
from rich.console import Console

from block_recurrent.config import (
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    PrepareConfig,
    RunConfig,
    TrainConfig,
)
from block_recurrent.data.batching.training_data import open_training
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.training.checkpoint import Checkpoints
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.run_record import make_record, write_record
from block_recurrent.training.step import init_train_state

QUIET = Console(quiet=True)


def prepare_store(folder: Path) -> Path:
    """Prepares forty short documents as bytes, in three splits; returns the store's folder."""
    texts = [" ".join(f"{n} times {k} is {n * k};" for k in range(1, 4 + n % 9)) for n in range(40)]
    lines = [json.dumps({"name": f"document {n}", "text": text}) for n, text in enumerate(texts)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    store = folder / "store"
    prepare(
        PrepareConfig(
            source="jsonl",
            input=str(folder / "texts.jsonl"),
            name_field="name",
            store=str(store),
            validation_percent=20,
            test_percent=20,
            workers=1,
        )
    )
    return store


def run_config(store: Path, **train: Any) -> RunConfig:
    """Returns a run of a recurrent model with dropout, so that every source of randomness is used."""
    settings: Any = {"num_steps": 10, "log_every": 1, "eval_every": 5, "checkpoint_every": 5} | train
    return RunConfig(
        model=ModelConfig(
            vocab_size=260,
            embed_dim=16,
            num_layers=2,
            num_heads=2,
            head_dim=8,
            mlp_dim=32,
            window_length=8,
            recurrent_layers=(-1,),
            num_states=4,
            dropout_rate=0.1,
            attention_dropout_rate=0.1,
        ),
        data=DataConfig(store=str(store), segment_length=16, batch_size=3),
        optimizer=OptimizerConfig(warmup_steps=2, decay_steps=20),
        train=TrainConfig(**settings),
        mesh=MeshConfig(data=1),
    )


def save_untrained(run: RunConfig, workdir: Path) -> Path:
    """Writes a run with the parameters before the first step, as a checkpoint of step 1; returns its folder."""
    training = open_training(run.data, vocab_size=run.model.vocab_size)
    optimizer = make_optimizer(run.optimizer, run.train.num_steps)
    state = init_train_state(run.model, optimizer, seed=0, batch_size=run.data.batch_size)
    workdir.mkdir(parents=True, exist_ok=True)
    with Checkpoints(epath.Path(workdir), keep=1) as checkpoints:
        assert checkpoints.save(1, state)
        assert checkpoints.wait()
    write_record(epath.Path(workdir), make_record(run, training.facts))
    return workdir
