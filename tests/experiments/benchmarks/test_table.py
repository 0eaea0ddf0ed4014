"""`make bench-rows`: the rows it measures, and that it continues where it stopped. Measuring needs an accelerator."""

import json

import pytest

from block_recurrent.cli import gin_files
from experiments.benchmarks import table1


@pytest.mark.parametrize("name", table1.FILES)
def test_every_row_has_a_quarter_of_the_papers_tokens(name):
    run = table1.run_of(name)
    assert run.data.batch_size * run.data.segment_length == 4096 * 32 // 4
    assert (run.model.dtype, run.model.remat, run.model.loss_chunk) == ("bfloat16", "dots", 512)


@pytest.mark.parametrize("text", table1.VARIANTS)
def test_a_variant_changes_one_execution_field(text):
    model, other = table1.run_of(table1.RECURRENT).model, table1.run_of(table1.RECURRENT, text).model
    changed = [field for field in vars(model) if getattr(model, field) != getattr(other, field)]
    assert changed == [text.removeprefix("ModelConfig.").partition("=")[0]]


@pytest.fixture
def small_rows(monkeypatch):
    """Lets every row be a small model, and counts the runs that are compiled."""
    compiled = []

    def run_of(name, *params):
        compiled.append(name)
        rows = ["DataConfig.batch_size=2", "DataConfig.segment_length=128", "ModelConfig.num_layers=3"]
        gin_files.parse(["gin/laptop/rec_fixed_skip.gin"], [*rows, "ModelConfig.recurrent_layers=(1,)"])
        return gin_files.configured_run()

    monkeypatch.setattr(table1, "run_of", run_of)
    return compiled


def test_a_second_call_measures_only_what_is_missing(small_rows, monkeypatch, tmp_path, capsys):
    command = ["table1", "--output", str(tmp_path / "table1.json"), "--rounds", "1", "--row", "XL:512"]
    monkeypatch.setattr("sys.argv", command)
    table1.main()
    assert small_rows == [table1.BASELINE, "XL:512"]
    first = json.loads((tmp_path / "table1.json").read_text())["rows"]["XL:512"]
    assert first["seconds"] > 0
    assert first["relative"] == pytest.approx(1, abs=0.9)  # the same model
    monkeypatch.setattr("sys.argv", [*command, "--row", "Slide:12L"])
    table1.main()
    assert small_rows[2:] == [table1.BASELINE, "Slide:12L"]
    assert json.loads((tmp_path / "table1.json").read_text())["rows"]["XL:512"] == first
    assert "of Slide:13L, in the paper 0.88" in capsys.readouterr().out
