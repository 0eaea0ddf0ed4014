"""`compile --all`: `--list` prints stale entries and changes no file, and the committed report is up to date."""

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from block_recurrent.aot import compile, largest_batch
from block_recurrent.aot.compile_report import RESULTS, markdown, read_result, write_result
from block_recurrent.cli import compile_aot
from block_recurrent.cli.main import app
from block_recurrent.errors import InputError
from tests.aot.test_compile_report import COMPILED

FRESH, STALE = "table1_slide_13l__v4_2x2x4__train", "table1_xl_512__v4_2x2x4__train"


def files(folder: Path) -> dict[Path, tuple[bytes, int]]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def test_list_prints_stale_entries_and_changes_no_file(monkeypatch, tmp_path):
    results = tmp_path / RESULTS
    results.mkdir()
    for name in (FRESH, STALE):
        write_result(results / f"{name}.json", COMPILED)
    before = files(tmp_path)
    monkeypatch.setattr(
        compile_aot, "_fingerprint_of", lambda entry: "another program" if entry.name == STALE else COMPILED.program
    )
    printed = []
    monkeypatch.setattr(compile_aot.CONSOLE, "print", lambda text, **_: printed.append(text))
    report = tmp_path / "report.md"
    arguments = ["compile", "--all", "--check", "--list", "--topology", "v4:2x2x4", "--out", str(report)]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert printed == [STALE, f"{report}: 1 stale entries; nothing was deleted"]
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--all", "--list"], "--list: goes with --all --check"),
        (["--list", "--topology", "v4:2x2x4"], "--list: goes with --all"),
    ],
)
def test_list_without_check_is_an_error(arguments, message):
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(app, ["compile", *arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("compiled", "code", "shown"),
    [
        (dataclasses.replace(COMPILED, hbm_bytes=4.2e10, unknown_loops=True), 0, "at least 42.00 GB per step"),
        (dataclasses.replace(COMPILED, code=0, peak=40 << 30), 1, "no: "),
    ],
)
def test_a_compiled_step_is_shown_and_written(monkeypatch, tmp_path, capsys, compiled, code, shown):
    monkeypatch.setattr(compile, "compile_step", lambda step, run, topology: compiled)
    monkeypatch.setattr(largest_batch, "largest_batch", lambda run, topology: "the largest batch has 5 rows")
    result = tmp_path / "result.json"
    run = ["--gin-file", "gin/runs/quickstart.gin", "--topology", "v4:2x2x4"]
    done = CliRunner().invoke(app, ["compile", *run, "--json", str(result), "--largest-batch"], catch_exceptions=False)
    printed = done.output + capsys.readouterr().out
    assert done.exit_code == code
    assert shown in " ".join(printed.split())
    assert "the largest batch has 5 rows" in printed
    assert read_result(result) == compiled


def test_the_committed_report_is_up_to_date():
    entries = compile_aot.report_entries(list(compile_aot.SLICES))
    results = compile_aot.REPORT.parent / RESULTS
    assert compile_aot.REPORT.read_text() == markdown(entries, results)
    assert {path.stem for path in results.iterdir()} <= {entry.name for entry in entries}


def test_the_scaling_figure_is_compiled_for_the_first_slice():
    entries = compile_aot.report_entries(["v5e:4x8", "v6e:4x4"])
    assert {entry.topology for entry in entries if entry.gin_file.startswith("scaling/")} == {"v5e:4x8"}
    assert {entry.topology for entry in entries if entry.gin_file.startswith("table2/")} == {"v5e:4x8", "v6e:4x4"}
