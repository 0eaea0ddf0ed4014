"""The paper's tables: every row in miniature, and `run_table` from the command line to the reproduced table."""

import csv
import dataclasses
import io
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from block_recurrent.cli.table import paper_run
from block_recurrent.errors import InputError
from block_recurrent.paper.formats import as_csv, as_markdown
from block_recurrent.paper.reproduction import compare_with_paper
from block_recurrent.paper.tables import ABLATIONS, SCALING, TABLE_1, TABLE_2, PaperTable
from block_recurrent.training.loop import train
from block_recurrent.training.metric_writer import read_metrics
from experiments.laptop.table import LAPTOP
from experiments.tables import run_table
from experiments.tables.experiment import Experiment, experiments
from tests.support.workdirs import QUIET

WINDOW = 4


def miniature(store: Any) -> tuple[str, ...]:
    """Returns `--gin-param` values for a narrow model and three steps on a tiny store of bytes."""
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
    """Returns `--gin-param` values for three layers and short blocks.

    Keeps recurrent layers, memory layers and blocks per segment. A memory holds four segments.
    """
    run = experiment.config()
    window = run.model.window_length
    segment = WINDOW * (run.data.segment_length // window if window else 1)
    recurrent = tuple(range(1, 1 + len(run.model.recurrent_layers)))
    states = (f"ModelConfig.recurrent_layers={recurrent}", "ModelConfig.num_states=4") if recurrent else ()
    memory = (f"ModelConfig.memory_size={4 * segment}", "ModelConfig.memory_neighbors=2")
    layers = tuple(range(len(run.model.memory_layers)))
    memory = (f"ModelConfig.memory_layers={layers}", *memory) if layers else ()
    return (
        "ModelConfig.num_layers=3",
        f"ModelConfig.window_length={WINDOW if window else None}",
        f"DataConfig.segment_length={segment}",
        *states,
        *memory,
    )


def rows(table: PaperTable, data: str) -> list[Experiment]:
    nowhere: dict[str, Any] = {"runs": epath.Path("nowhere"), "results": epath.Path("nowhere")}
    recipe = None if table is LAPTOP else "inverse_square_root"
    return experiments(table, data=[data], recipe=recipe, seeds={}, **nowhere)


QUICK = {"gin/laptop/slide_5l.gin"}
# Files that belong to no table.
MEMORIZING = ("gin/table1/memorizing_8k.gin", "gin/table1/memorizing_32k.gin")
MEMORIZING_LAPTOP = ("gin/laptop/memorizing.gin", "gin/laptop/memorizing_slide.gin")


def cases() -> list[Any]:
    """Returns the rows; most are slow. Of the scaling figure only two: its sizes differ only in width."""
    found = [*rows(TABLE_1, "pg19_bytes"), *rows(LAPTOP, "python_packages"), *rows(TABLE_2, "pg19_tokens")]
    found += [*rows(SCALING, "pg19_tokens")[:2], *rows(ABLATIONS, "pg19_tokens")[1:]]
    found += [dataclasses.replace(found[0], row=file, gin_file=file) for file in MEMORIZING]
    laptop = next(e for e in found if e.data == "python_packages")
    found += [dataclasses.replace(laptop, row=file, gin_file=file) for file in MEMORIZING_LAPTOP]
    slow = pytest.mark.slow
    return [pytest.param(e, marks=() if e.gin_file in QUICK else slow, id=e.gin_file) for e in found]


@pytest.mark.parametrize("experiment", cases())
def test_a_miniature_of_every_row_trains(experiment, store_folder, tmp_path):
    small = dataclasses.replace(experiment, params=(*miniature(store_folder), *shrunken(experiment)))
    train(small.config(), epath.Path(tmp_path), QUIET)
    losses = [line["bits_per_byte"] for line in read_metrics(epath.Path(tmp_path)) if line["group"] == "train"]
    assert len(losses) == 3
    assert all(1 < loss < 12 for loss in losses)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Runs `experiments.tables.run_table` in this process."""
    monkeypatch.setattr("sys.argv", ["run_table", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "250")
    return run_table.main()


@pytest.mark.slow
def test_the_list_has_every_row_with_its_size_relative_to_the_extra_layer(monkeypatch, capsys, tmp_path):
    common = ("--table", "table1", "--data", "pg19_tokens", "--runs", tmp_path, "--results", tmp_path)
    assert command(monkeypatch, *common, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    for row in TABLE_1.rows:
        if row.gin_file is not None:
            (line,) = [line for line in lines if row.gin_file in line]
            assert "missing" in line
    rec = next(line for line in lines if "table1/rec_fixed_skip" in line)
    assert re.search(r"160\.46 M +0\.981 +1,254\.4 M +0\.995 +131,072", rec)


def test_a_dry_run_prints_commands_for_this_machine_or_a_tpu(monkeypatch, capsys, tmp_path):
    common = ("--table", "table1", "--data", "arxiv", "--rows", "fixed:skip", "--recipe", "cosine", "--dry-run")
    folders = ("--runs", "gs://bucket/runs", "--results", tmp_path)
    assert command(monkeypatch, *common, *folders) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# 1 of 2: Rec:fixed:skip on arxiv, seed 0",
        "# 2 of 2: Feedback:fixed:skip on arxiv, seed 0",
    ]
    train_command = next(line for line in lines if " train " in line)
    for words in ("table1/rec_fixed_skip.gin", "data/arxiv.gin", "recipes/cosine.gin", "--workdir gs://bucket/runs/"):
        assert words in train_command
    assert command(monkeypatch, *common, *folders, "--tpu", "pod:us-central2-b") == 0
    remote = [line for line in capsys.readouterr().out.splitlines() if "tpu.sh train" in line]
    assert len(remote) == 2
    assert all(line.startswith("NAME=pod ZONE=us-central2-b experiments/tpu/tpu.sh train --gin") for line in remote)
    assert all(line.endswith("--gin-file gin/hardware/tpu.gin") for line in remote)


def test_commands_for_a_tpu_read_and_write_the_bucket_alone(monkeypatch, capsys, tmp_path):
    """Every folder in them is on the bucket; a folder that is not is an error before anything is printed."""
    common = ("--table", "table1", "--data", "arxiv", "--rows", "rec:fixed:skip", "--dry-run", "--tpu", "pod:zone-b")
    common += ("--results", tmp_path)
    assert command(monkeypatch, *common, "--runs", "gs://bucket/my/runs") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    prepare, train, _, evaluate, fetch = (shlex.split(line, comments=True) for line in lines)
    store = "STORE='gs://bucket/my/prepared/arxiv'"
    assert store in prepare
    assert store in train
    workdir = train[train.index("--workdir") + 1]
    assert workdir.startswith("gs://bucket/my/runs/table1/rec_fixed_skip/")
    assert evaluate[2:] == ["experiments/tpu/tpu.sh", "evaluate", "--workdir", workdir, "--split", "test"]
    assert fetch[3:] == ["fetch", workdir, workdir.replace("gs://bucket/my/", "")]
    for arguments, named in (
        (("--runs", "runs"), "--runs = runs"),
        (("--runs", "gs://b/r", "--stores", "prepared"), "prepared/arxiv"),
        (("--runs", "gs://b/r", "--gin-param", "STORE='/disk/arxiv'"), "/disk/arxiv"),
    ):
        with pytest.raises(InputError, match=re.escape(named)):
            command(monkeypatch, *common, *arguments)
        assert capsys.readouterr().out == ""


def test_every_table_has_its_own_folder_of_results():
    assert run_table.default_results(TABLE_1) == Path("experiments/tables/results/table1")
    assert run_table.default_results(SCALING) == Path("experiments/tables/results/scaling")
    assert run_table.default_results(LAPTOP) == Path("experiments/laptop/results")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--table", "table2", "--data", "arxiv"), "--data arxiv: table2 has pg19_tokens"),
        (("--table", "table1", "--rows", "Mamba"), "--rows Mamba: table1 has XL:512"),
        (("--table", "table1", "--list", "--tpu", "a:b"), "--tpu: goes with --dry-run"),
        (("--table", "table1", "--gin-param", "ModelConfig.cell='x'", "--dry-run"), "ModelConfig.cell = 'x': must be"),
    ],
)
def test_mistakes_are_reported_before_the_first_run_starts(arguments, message, monkeypatch, tmp_path):
    with pytest.raises(InputError, match=re.escape(message)):
        command(monkeypatch, *arguments, "--runs", tmp_path, "--results", tmp_path)


def test_a_closed_pipe_causes_no_error_message():
    script = [sys.executable, "-m", "experiments.tables.run_table", "--table", "table2", "--dry-run"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(script, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.slow
def test_a_row_is_run_evaluated_and_filled_into_the_table(monkeypatch, capfd, tmp_path, store_folder):
    """One row: run from text to result, collected again without its result file, rejected with other parameters."""
    store, runs, results = tmp_path / "store", tmp_path / "runs", tmp_path / "results"
    shrink = (
        *miniature(store)[1:],
        "ModelConfig.num_layers=3",
        f"ModelConfig.window_length={WINDOW}",
        f"DataConfig.segment_length={2 * WINDOW}",
        f"STORE='{store}'",
        "PrepareConfig.source='jsonl'",
        f"PrepareConfig.input='{store_folder.parent / 'texts.jsonl'}'",
        "PrepareConfig.validation_percent=20",
        "PrepareConfig.test_percent=20",
    )
    options = ("--table", "table1", "--data", "pg19_bytes", "--rows", "Slide:13L", "--runs", runs, "--results", results)
    arguments = (*options, *(word for param in shrink for word in ("--gin-param", param)))
    assert command(monkeypatch, *arguments) == 0
    (path,) = results.glob("*.json")
    result = json.loads(path.read_text())
    assert (result["row"], result["steps"], result["tokens_trained"]) == ("Slide:13L", 3, 3 * 2 * 2 * WINDOW)
    bits = sum(result["documents"]["nats"]) / math.log(2)
    assert result["evaluation"]["bits_per_byte"]["value"] == pytest.approx(bits / sum(result["documents"]["bytes"]))
    path.unlink()  # the run still exists: only the result is written
    before = sorted((runs / "table1").rglob("*"))
    assert command(monkeypatch, *arguments) == 0
    assert sorted((runs / "table1").rglob("*")) == before
    assert json.loads(path.read_text())["evaluation"] == result["evaluation"]
    with pytest.raises(InputError, match="made by another experiment"):
        command(monkeypatch, *options)
    compared = compare_with_paper(TABLE_1, epath.Path(runs), paper_run)
    cell = next(row for row in compared.rows if row.row.name == "Slide:13L").cells["pg19_bytes"].ours
    assert cell is not None
    assert cell.value == result["evaluation"]["bits_per_token"]["value"]
    assert any(label.startswith("other data") for label in cell.labels)
    assert any("embed_dim = 16 (1024)" in label and "num_steps = 3 (500000)" in label for label in cell.labels)
    assert "| missing |" in as_markdown(compared)
    lines = {(line["row"], line["column"]): line for line in csv.DictReader(io.StringIO(as_csv(compared)))}
    assert lines["XL:1024", "arXiv"]["paper_provenance"] == "recalled"
    assert lines["Slide:13L", "PG19 bytes"]["here"] == f"{cell.value:.3f}"
    assert lines["XL:512", "PG19 bytes"]["here"] == "missing"
    assert lines["Slide:13L", "step time"]["here"] == "1.000"


SAVES_ON_SIGTERM = """
import signal, sys, time
def save(*_):
    time.sleep(0.2)
    print("saved", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
print("begun", flush=True)
time.sleep(60)
"""


def test_sigterm_is_passed_on_to_the_run_which_may_save(capfd):
    def send_sigterm() -> None:
        printed = ""
        while "begun" not in printed:
            time.sleep(0.02)
            printed += capfd.readouterr().out
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send_sigterm).start()
    assert run_table.run_to_end([sys.executable, "-c", SAVES_ON_SIGTERM]) == 75
    assert "saved" in capfd.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
