"""`make bench-table`: what it measures and when it refuses to. The measurements themselves need an accelerator."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from block_recurrent.cli import gin_files
from experiments.benchmarks import table


@pytest.mark.parametrize("name", table.FILES)
def test_every_row_has_a_quarter_of_the_papers_tokens(name):
    run = table.run_of(name)
    assert run.data.batch_size * run.data.segment_length == 4096 * 32 // 4
    assert (run.model.dtype, run.model.remat, run.model.loss_chunk) == ("bfloat16", "dots", 512)


@pytest.mark.parametrize("text", table.VARIANTS)
def test_a_variant_changes_one_execution_field(text):
    model, other = table.run_of(table.RECURRENT).model, table.run_of(table.RECURRENT, text).model
    changed = [field for field in vars(model) if getattr(model, field) != getattr(other, field)]
    assert changed == [text.removeprefix("ModelConfig.").partition("=")[0]]


def test_a_relative_time_is_the_median_of_the_turns_ratios_without_the_first():
    def steps(*seconds) -> Any:
        return SimpleNamespace(facts={"flops": 6e12}, seconds=iter(seconds).__next__)

    found = table.measure(steps(9.0, 2.0, 3.0, 4.0), steps(1.0, 1.0, 2.0, 1.0), rounds=3)
    assert found == {"flops": 6e12, "rounds": 3, "seconds": 3.0, "relative": 2.0, "teraflops": 2.0}


def test_a_cell_of_the_paper_without_a_second_source_is_labelled():
    found = {"seconds": 0.5, "relative": 1.0, "teraflops": 2.0, "bytes": 3e9, "compile_seconds": 4.0}
    assert "in the paper 1.20 recalled;" in table.line("XL:1024", found)
    assert "in the paper 0.88;" in table.line("XL:512", found)
    assert "in the paper" not in table.line("Rec:fixed:skip, ModelConfig.remat='full'", found)


@pytest.fixture
def small_rows(monkeypatch):
    """Lets every row be a small model, and counts the runs that are compiled."""
    compiled = []

    def run_of(name, *params):
        compiled.append(name)
        rows = ["DataConfig.batch_size=2", "DataConfig.segment_length=32"]
        model = {"embed_dim": 16, "mlp_dim": 16, "num_layers": 1}
        sizes = [f"ModelConfig.{field}={value}" for field, value in model.items()]
        gin_files.parse(["gin/laptop/slide_5l.gin"], rows + sizes)
        return gin_files.configured_run()

    monkeypatch.setattr(table, "run_of", run_of)
    return compiled


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Returns a function that measures some rows on CPU, into one file."""

    def call(*rows, platform="cpu"):
        names = [text for row in rows for text in ("--row", row)]
        options = ["--output", str(tmp_path / "table.json"), "--rounds", "1", "--platform", platform]
        monkeypatch.setattr("sys.argv", ["table", *options, *names])
        return table.main()

    return call


def test_a_second_call_measures_only_what_is_missing(small_rows, call, tmp_path):
    assert call("XL:512") == 0
    assert small_rows == [table.BASELINE, "XL:512"]
    first = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert call("XL:512", table.BASELINE) == 0
    assert small_rows[2:] == [table.BASELINE]  # which does not need a second program to be its own baseline
    second = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert list(second) == ["XL:512", table.BASELINE]
    assert second["XL:512"] == first["XL:512"]


def test_a_file_of_another_device_is_refused_and_kept(small_rows, call, tmp_path, capsys):
    text = json.dumps({"device": "NVIDIA H100", "jax": "0.10.1", "rows": {}})
    (tmp_path / "table.json").write_text(text)
    assert call("XL:512") == 2
    assert "measured with {'device': 'NVIDIA H100'" in capsys.readouterr().err
    assert (tmp_path / "table.json").read_text() == text
    assert not small_rows


def test_a_machine_without_the_accelerator_is_told_so(small_rows, call, capsys):
    assert call(platform="cuda") == 2
    assert "jax finds no device of --platform cuda" in capsys.readouterr().err
    assert not small_rows
