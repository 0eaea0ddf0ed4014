"""The report compiles entry by entry and continues after an interruption."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from block_recurrent.aot import compile, compile_report
from block_recurrent.aot.collectives import Traffic
from block_recurrent.aot.compile import CompiledStep
from block_recurrent.aot.roofline import Estimate
from tests.support.architectures import CACHED

COMPILED = CompiledStep(
    step="train",
    topology="v4:2x2x4",
    num_chips=16,
    batch_size=32,
    tokens=32 * 4096,
    parameters=600_000_000,
    optimizer=900_000_000,
    state=10_000_000,
    temporaries=3_000_000_000,
    code=100_000_000,
    peak=4_610_000_000,
    capacity=32 << 30,
    flops_per_token=1e9,
    flops=1.3e14,
    traffic={"all-reduce": Traffic(10, 600_000_000)},
    estimate=Estimate(0.1, 0.05, 0.01),
    lower_seconds=2.0,
    compile_seconds=99.0,
    host_bytes=4_000_000_000,
    program="libtpu 1.0, 0123456789abcdef",
)
ENTRIES = [
    compile_report.Entry(gin_file=f"table1/{row}.gin", topology="v4:2x2x4", step="train")
    for row in ("slide_13l", "xl_512")
]


def test_a_result_survives_writing_and_reading(tmp_path):
    compile_report.write_result(tmp_path / "one.json", COMPILED)
    assert compile_report.read_result(tmp_path / "one.json") == COMPILED


def test_finished_entries_stay_and_missing_ones_are_compiled(tmp_path, monkeypatch):
    calls = []

    def run(command, **_):
        calls.append(command)
        if "gin/table1/xl_512.gin" in command and len(calls) < 3:
            return SimpleNamespace(returncode=2, stderr="error: broken")
        compile_report.write_result(Path(command[command.index("--json") + 1]), COMPILED)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    path, messages, steps = tmp_path / "report.md", [], []
    assert compile_report.complete_report(ENTRIES, path, messages.append, lambda *step: steps.append(step)) == 1
    assert messages[0].endswith("slide_13l__v4_2x2x4__train: fits; 99 s, 4.00 GB to compile")
    assert messages[-1].endswith("exit code 2: error: broken")
    assert steps == [("compiling", 0, 2), ("compiling", 1, 2)]
    assert calls[0][:4] == [sys.executable, "-m", "block_recurrent", "compile"]
    first = path.read_text()
    assert "1 of 2 entries" in first
    assert "The compiler of libtpu 1.0 reports the memory" in first
    assert "GB | 1.0 |\n" in first
    assert "## v4:2x2x4: 16 chips, 34.36 GB each" in first
    assert "| table1/slide_13l | train | xla | 32 | yes | 4.61 | 0.60 + 0.90 + 0.01 + 3.00 |" in first
    assert "| table1/xl_512 | train | xla | missing |" in first
    assert compile_report.complete_report(ENTRIES, path, messages.append, lambda *_: None, limit=1) == 0
    assert len(calls) == 3
    assert "missing" not in path.read_text()


def test_an_entry_with_gin_params_has_its_own_row(tmp_path):
    plain, changed = (
        compile_report.Entry(gin_file="table2/rec_1300m.gin", topology="v5e:4x8", step="train", gin_params=params)
        for params in ((), ("MeshConfig.fsdp=8",))
    )
    assert changed.name == f"{plain.name}__MeshConfig.fsdp_8"
    assert changed.command == [*plain.command[:-4], "--gin-param", "MeshConfig.fsdp=8", *plain.command[-4:]]
    fused = dataclasses.replace(plain, gin_params=(compile_report.FUSED,))
    assert fused.name == f"{plain.name}__ModelConfig.attention_kernel_fused"
    compile_report.write_result(tmp_path / f"{changed.name}.json", COMPILED)
    text = compile_report.markdown([plain, fused, changed], tmp_path)
    assert "| table2/rec_1300m | train | xla | missing |" in text
    assert "| table2/rec_1300m | train | fused | missing |" in text
    assert "| table2/rec_1300m `MeshConfig.fsdp=8` | train | xla | 32 | yes |" in text


def test_a_program_that_the_compiler_rejects_has_no_estimate(tmp_path):
    rejected = dataclasses.replace(COMPILED, code=0, peak=40 << 30, traffic={}, estimate=Estimate(0, 0, 0, 0.1, 0))
    compile_report.write_result(tmp_path / f"{ENTRIES[0].name}.json", rejected)
    text = compile_report.markdown(ENTRIES, tmp_path)
    assert "| 32 | no | 42.95 | 0.60 + 0.90 + 0.01 + 3.00 | ? | ? | ? | ? | 1e+09 |" in text


@pytest.mark.parametrize(
    ("fields", "noted"),
    [({"hbm_bytes": None}, True), ({"hbm_bytes": None, "code": 0}, False), ({"hbm_bytes": 9}, False)],
)
def test_entries_without_traffic_have_a_note(tmp_path, fields, noted):
    compile_report.write_result(tmp_path / f"{ENTRIES[0].name}.json", dataclasses.replace(COMPILED, **fields))
    assert ("Entries without traffic (-) are older" in compile_report.markdown(ENTRIES, tmp_path)) is noted


def test_the_report_has_a_table_for_each_slice(tmp_path):
    entries = [
        compile_report.Entry(gin_file=f"table1/{row}.gin", topology=name, step="train")
        for name, row in (("v4:2x2x4", "xl_512"), ("v5e:4x8", "xl_512"), ("v4:2x2x4", "slide_13l"))
    ]
    text = compile_report.markdown(entries, tmp_path)
    v4, v5e = text.split("\n## ")[1:]
    assert v4.startswith("v4:2x2x4\n")
    assert [row in v4 for row in ("xl_512", "slide_13l")] == [True, True]
    assert v5e.startswith("v5e:4x8\n")
    assert [row in v5e for row in ("xl_512", "slide_13l")] == [True, False]
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {len(compile_report.HEAD) + 1}


def test_finished_entries_with_a_changed_program_are_compiled_again(tmp_path, monkeypatch):
    compiled = []

    def run(command, **_):
        path = Path(command[command.index("--json") + 1])
        compiled.append(path.stem)
        compile_report.write_result(path, COMPILED)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    messages, steps = [], []
    programs = {ENTRIES[0]: COMPILED.program, ENTRIES[1]: "libtpu 1.0, another"}
    arguments = (ENTRIES, tmp_path / "report.md", messages.append, lambda *step: steps.append(step))
    compile_report.complete_report(*arguments, fingerprint_of=programs.__getitem__)
    assert compiled == [entry.name for entry in ENTRIES]  # all were missing
    compile_report.complete_report(*arguments, fingerprint_of=programs.__getitem__)
    assert compiled == [ENTRIES[0].name, ENTRIES[1].name, ENTRIES[1].name]
    assert f"{ENTRIES[1].name}: the program has changed, deleted" in messages
    assert steps[2:4] == [("checking", 0, 2), ("checking", 1, 2)]


def test_stale_entries_have_a_changed_program_and_stay_in_the_folder(tmp_path):
    results = [tmp_path / f"{entry.name}.json" for entry in ENTRIES]
    for path in results:
        compile_report.write_result(path, COMPILED)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    missing = compile_report.Entry(gin_file="table1/xl_1024.gin", topology="v4:2x2x4", step="train")
    programs = {ENTRIES[0]: COMPILED.program, ENTRIES[1]: "libtpu 1.0, another"}
    steps: list[tuple[str, int, int]] = []
    stale = compile_report.stale_entries(
        [*ENTRIES, missing], tmp_path, lambda *step: steps.append(step), programs.__getitem__
    )
    assert stale == [ENTRIES[1]]
    assert steps == [("checking", 0, 2), ("checking", 1, 2)]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


class Rejected:
    """A lowered program that libtpu rejects."""

    def __init__(self, message: str) -> None:
        self.message = message

    def compile(self) -> None:
        raise RuntimeError(self.message)


@pytest.mark.parametrize(
    ("message", "temporaries"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (3.00G) exc",
            3 << 30,
        ),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 4.00G of 3.75G hbm. Exceeded by", 3 << 30),
    ],
)
def test_the_bytes_that_a_rejected_program_needs_are_read_from_the_error(message, temporaries):
    program = compile._compile(CACHED["slide"], Rejected(message), persistent=1 << 30)
    assert (program.temporaries, program.code, program.arguments) == (temporaries, 0, None)


def test_any_other_compiler_error_is_raised():
    with pytest.raises(RuntimeError, match="internal"):
        compile._compile(CACHED["slide"], Rejected("internal"), persistent=0)
