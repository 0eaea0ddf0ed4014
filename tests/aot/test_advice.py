"""What to change about a run that does not fit, and how many rows would."""

import dataclasses
from typing import Any

import pytest

from block_recurrent.aot import largest_batch
from block_recurrent.aot.advice import advice
from block_recurrent.aot.compile import CompiledStep
from block_recurrent.aot.topology import Topology
from block_recurrent.cli import gin_files
from block_recurrent.config import MeshConfig, RunConfig
from block_recurrent.errors import InputError
from tests.aot.test_compile_report import COMPILED

TOO_LARGE = dataclasses.replace(COMPILED, peak=40 << 30, optimizer=20 << 30)


@pytest.fixture
def run() -> RunConfig:
    gin_files.parse(["gin/table1/rec_fixed_skip.gin", "gin/data/pg19_tokens.gin", "gin/recipes/cosine.gin"], None)
    return gin_files.configured_run()


def replaced(run: RunConfig, **parts: dict[str, Any]) -> RunConfig:
    return dataclasses.replace(run, **{n: dataclasses.replace(getattr(run, n), **p) for n, p in parts.items()})


def test_what_fits_needs_no_advice(run):
    assert advice(COMPILED, run) == ""


def test_advice_names_every_setting_that_is_not_used(run):
    assert advice(TOO_LARGE, run) == (
        "divide parameters and optimizer: MeshConfig.fsdp; "
        "keep less for the backward pass: ModelConfig.remat='dots', then 'full'; "
        "logits in chunks: ModelConfig.loss_chunk=512; "
        "fewer rows at once: TrainConfig.accumulate_steps; "
        "a smaller DataConfig.batch_size or more chips"
    )


def test_advice_names_no_setting_that_is_used(run):
    run = replaced(run, model={"remat": "full", "loss_chunk": 512}, train={"accumulate_steps": 2}, mesh={"fsdp": 4})
    assert advice(TOO_LARGE, run) == (
        "divide parameters and optimizer: MeshConfig.fsdp above 4; "
        "fewer rows at once: TrainConfig.accumulate_steps above 2; "
        "a smaller DataConfig.batch_size or more chips"
    )
    assert "remat='full'" in advice(TOO_LARGE, replaced(run, model={"remat": "dots"}))
    assert advice(dataclasses.replace(TOO_LARGE, step="decode", optimizer=0), run) == (
        "a smaller DataConfig.batch_size or more chips"
    )


def compiler(fixed: float, per_row: float, asked: list[int]) -> Any:
    """Programs of which every row takes as many bytes more."""

    def compile_step(step: str, run: RunConfig, topology: Topology) -> CompiledStep:
        asked.append(run.data.batch_size)
        peak = int(fixed + per_row * run.data.batch_size)
        return dataclasses.replace(COMPILED, step=step, batch_size=run.data.batch_size, peak=peak)

    return compile_step


def test_the_largest_batch_is_found_by_three_compilations(run, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(largest_batch, "compile_step", compiler(2e9, 1e9, asked))
    found = largest_batch.largest_batch(run, Topology.parse("v4:2x2x1"))
    assert asked == [4, 8, 28]  # of 34.36 GB, 98 % are 2 + 31.7
    assert "about 28 rows (7 x 4), 4.00 GB for each 4 more; confirmed by compiling it: 30.00 of 34.4 GB" in found


def test_the_largest_batch_divides_rows_as_the_mesh_does(run, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(largest_batch, "compile_step", compiler(2e9, 1e9, asked))
    run = dataclasses.replace(replaced(run, train={"accumulate_steps": 2}), mesh=MeshConfig(fsdp=2, tensor=2))
    largest_batch.largest_batch(run, Topology.parse("v4:2x2x1"))
    assert asked == [4, 8, 28]


def test_not_even_one_row_fits(run, monkeypatch):
    monkeypatch.setattr(largest_batch, "compile_step", compiler(40e9, 1e9, []))
    found = largest_batch.largest_batch(run, Topology.parse("v4:2x2x1"))
    assert found.startswith("not even the smallest batch, 4 rows, fits v4:2x2x1: ")
    assert "ModelConfig.remat" in found


def test_memory_that_does_not_grow_is_an_error(run, monkeypatch):
    monkeypatch.setattr(largest_batch, "compile_step", compiler(2e9, 0, []))
    with pytest.raises(InputError, match="did not grow from 4 to 8 rows"):
        largest_batch.largest_batch(run, Topology.parse("v4:2x2x1"))
