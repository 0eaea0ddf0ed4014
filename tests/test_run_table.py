"""Tables as experiments: every row in miniature, and the driver from the command line to the reproduced table."""

import dataclasses
from typing import Any

import pytest
from etils import epath
from laptop_table import LAPTOP
from table_experiment import Experiment, experiments

from block_recurrent.metrics import read_metrics
from block_recurrent.paper_tables import ABLATIONS, SCALING, TABLE_1, TABLE_2, PaperTable
from block_recurrent.train import train
from tests.workdirs import QUIET

WINDOW = 4


def miniature(store: Any) -> tuple[str, ...]:
    """Parameters that shrink any row: narrow, few layers, short blocks, three steps on a tiny store of bytes."""
    return (
        f"DataConfig.store='{store}'",
        "DataConfig.batch_size=2",
        "DataConfig.min_document_tokens=2",
        "MeshConfig.data=1",
        "ModelConfig.vocab_size=260",
        "ModelConfig.embed_dim=16",
        "ModelConfig.num_heads=2",
        "ModelConfig.head_dim=8",
        "ModelConfig.mlp_dim=32",
        "TrainConfig.num_steps=3",
        "TrainConfig.log_every=1",
        "TrainConfig.eval_steps=1",
    )


def shrunken(experiment: Experiment) -> tuple[str, ...]:
    """Three layers, as many recurrent ones as the row has, and short blocks, as many in a segment as the row has."""
    run = experiment.config()
    assert run.model.window_length is not None
    segment = WINDOW * run.data.segment_length // run.model.window_length
    recurrent = tuple(range(1, 1 + len(run.model.recurrent_layers)))
    states = (f"ModelConfig.recurrent_layers={recurrent}", "ModelConfig.num_states=4") if recurrent else ()
    return (
        "ModelConfig.num_layers=3",
        f"ModelConfig.window_length={WINDOW}",
        f"DataConfig.segment_length={segment}",
        *states,
    )


def rows(table: PaperTable, data: str) -> list[Experiment]:
    nowhere: dict[str, Any] = {"runs": epath.Path("nowhere"), "results": epath.Path("nowhere")}
    recipe = None if table is LAPTOP else "inverse_square_root"
    return experiments(table, data=[data], recipe=recipe, seeds={}, **nowhere)


QUICK = {"gin/table1/xl_512.gin", "gin/table1/slide_13l.gin", "gin/table1/rec_lstm_dual.gin", "gin/laptop/slide_5l.gin"}


def cases() -> list[Any]:
    """One row of each kind; with `-m slow` the others. Sizes of the scaling figure differ in widths alone."""
    found = [*rows(TABLE_1, "pg19_bytes"), *rows(LAPTOP, "python_stdlib"), *rows(TABLE_2, "pg19_tokens")]
    found += [*rows(SCALING, "pg19_tokens")[:2], *rows(ABLATIONS, "pg19_tokens")[1:]]
    slow = pytest.mark.slow
    return [pytest.param(e, marks=() if e.gin_file in QUICK else slow, id=e.gin_file) for e in found]


@pytest.mark.parametrize("experiment", cases())
def test_a_miniature_of_every_row_trains(experiment, store_folder, tmp_path):
    small = dataclasses.replace(experiment, params=(*miniature(store_folder), *shrunken(experiment)))
    train(small.config(), epath.Path(tmp_path), QUIET)
    losses = [line["bits_per_byte"] for line in read_metrics(epath.Path(tmp_path)) if line["group"] == "train"]
    assert len(losses) == 3
    assert all(1 < loss < 12 for loss in losses)
