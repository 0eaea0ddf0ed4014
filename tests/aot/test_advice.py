"""Advice for runs that do not fit, and the search for the largest batch."""

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


def test_a_step_that_fits_gets_no_advice(run):
    assert advice(COMPILED, run) == ""


def test_advice_names_every_unused_setting(run):
    assert advice(TOO_LARGE, run) == (
        "shard parameters and optimizer state: MeshConfig.fsdp; "
        "store fewer activations for the backward pass: ModelConfig.remat='dots', then 'full'; "
        "compute logits in chunks: ModelConfig.loss_chunk=512; "
        "smaller micro-batches: TrainConfig.accumulate_steps; "
        "a smaller DataConfig.batch_size or more chips"
    )


def test_advice_omits_settings_that_are_already_used(run):
    run = replaced(run, model={"remat": "full", "loss_chunk": 512}, train={"accumulate_steps": 2}, mesh={"fsdp": 4})
    assert advice(TOO_LARGE, run) == (
        "shard parameters and optimizer state: MeshConfig.fsdp above 4; "
        "smaller micro-batches: TrainConfig.accumulate_steps above 2; "
        "a smaller DataConfig.batch_size or more chips"
    )
    assert "remat='full'" in advice(TOO_LARGE, replaced(run, model={"remat": "dots"}))
    assert advice(dataclasses.replace(TOO_LARGE, step="decode", optimizer=0), run) == (
        "a smaller DataConfig.batch_size or more chips"
    )


def compiler(fixed: float, per_row: float, batch_sizes: list[int]) -> Any:
    """Returns a `compile_step` whose peak memory grows linearly with the rows; it records the batch sizes."""

    def compile_step(step: str, run: RunConfig, topology: Topology) -> CompiledStep:
        batch_sizes.append(run.data.batch_size)
        peak = int(fixed + per_row * run.data.batch_size)
        return dataclasses.replace(COMPILED, step=step, batch_size=run.data.batch_size, peak=peak)

    return compile_step


def test_the_largest_batch_is_found_by_three_compilations(run, monkeypatch):
    batch_sizes: list[int] = []
    monkeypatch.setattr(largest_batch, "compile_step", compiler(2e9, 1e9, batch_sizes))
    found = largest_batch.largest_batch(run, Topology.parse("v4:2x2x1"))
    assert batch_sizes == [4, 8, 28]  # 98 % of 34.36 GB is 2 GB and 31.7 rows of 1 GB
    assert "about 28 rows (7 x 4), 4.00 GB for every 4 more rows; confirmed by compiling it: 30.00 of 34.4 GB" in found


def test_the_largest_batch_divides_rows_as_the_mesh_does(run, monkeypatch):
    batch_sizes: list[int] = []
    monkeypatch.setattr(largest_batch, "compile_step", compiler(2e9, 1e9, batch_sizes))
    run = dataclasses.replace(replaced(run, train={"accumulate_steps": 2}), mesh=MeshConfig(fsdp=2, tensor=2))
    largest_batch.largest_batch(run, Topology.parse("v4:2x2x1"))
    assert batch_sizes == [4, 8, 28]


def test_a_smallest_batch_that_does_not_fit_gets_advice(run, monkeypatch):
    monkeypatch.setattr(largest_batch, "compile_step", compiler(40e9, 1e9, []))
    found = largest_batch.largest_batch(run, Topology.parse("v4:2x2x1"))
    assert found.startswith("the smallest batch, 4 rows, does not fit v4:2x2x1: ")
    assert "ModelConfig.remat" in found


def test_memory_that_does_not_grow_with_the_batch_is_an_error(run, monkeypatch):
    monkeypatch.setattr(largest_batch, "compile_step", compiler(2e9, 0, []))
    with pytest.raises(InputError, match="did not grow from 4 to 8 rows"):
        largest_batch.largest_batch(run, Topology.parse("v4:2x2x1"))
