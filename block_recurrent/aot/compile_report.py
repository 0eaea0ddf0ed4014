"""A report on many compiled steps; finished entries are kept, and the next call compiles the missing ones."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from block_recurrent.aot.collectives import Traffic
from block_recurrent.aot.compile import CompiledStep
from block_recurrent.aot.roofline import ASSUMPTIONS, Estimate
from block_recurrent.errors import InputError
from block_recurrent.files import write_whole
from block_recurrent.progress import StageCallback

RESULTS = "compile_results"  # folder of finished entries, next to the report
FOLDERS = ("table1", "table2", "scaling")  # folders of gin/ that `compile --all` compiles
# Files whose evaluation and decoding are compiled, too.
ALL_STEPS_FILES = ("table1/rec_fixed_skip.gin", "table1/slide_13l.gin", "table1/xl_512.gin")
SHARED = ("gin/data/pg19_tokens.gin", "gin/recipes/cosine.gin", "gin/hardware/tpu.gin")
FUSED = "ModelConfig.attention_kernel='fused'"
_WITHOUT_TRAFFIC = (
    "Entries without traffic (-) are older. Their estimate leaves out most of the traffic and is too short."
)
_GB = 1e9
HEAD = (
    "experiment",
    "step",
    "kernel",
    "rows",
    "fits",
    "peak of a chip (GB)",
    "parameters + optimizer + state + temporaries (GB)",
    "HBM traffic of a chip (GB)",
    "collectives (GB)",
    "ms of arithmetic, memory, collectives (the longest)",
    "estimate (utilisation)",
    "FLOPs per token",
    "FLOPs per step",
    "compile time, host memory",
    "libtpu",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the report.

    Attributes:
        gin_file: file of the experiment, relative to `gin/`.
        topology: name of the slice.
        step: `train`, `evaluate` or `decode`.
        gin_params: additional `--gin-param` values.
    """

    gin_file: str
    topology: str
    step: str
    gin_params: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Stem of the result file."""
        parts = (self.gin_file.removesuffix(".gin"), self.topology, self.step, *self.gin_params)
        return "__".join(re.sub(r"[/:=]", "_", part).replace("'", "") for part in parts)

    @property
    def gin_files(self) -> list[str]:
        """The experiment's file and the files that every experiment is combined with."""
        return [f"gin/{self.gin_file}", *SHARED]

    @property
    def command(self) -> list[str]:
        """Arguments of the command that compiles the entry; a separate process measures its memory."""
        arguments = [text for file in self.gin_files for text in ("--gin-file", file)]
        arguments += [text for param in self.gin_params for text in ("--gin-param", param)]
        return ["compile", *arguments, "--topology", self.topology, "--step", self.step]


# Entries with other settings: an experiment that does not fit a slice unchanged, with the first setting that `advice`
# returns; and 4096 tokens a chip of a v4-32 instead of 8192.
ADJUSTED = (
    Entry(gin_file="table2/rec_1300m.gin", topology="v5e:4x8", step="train", gin_params=("MeshConfig.fsdp=8",)),
    *(
        Entry(
            gin_file=f"table1/{row}.gin",
            topology="v4:2x2x4",
            step="train",
            gin_params=(f"DataConfig.batch_size={n}", *kernel),
        )
        for row, n in (("rec_fixed_skip", 16), ("slide_12l", 16), ("xl_2048", 32))
        for kernel in ((), (FUSED,))
    ),
)


def complete_report(
    entries: Sequence[Entry],
    report: Path,
    notify: Callable[[str], None],
    progress: StageCallback,
    *,
    limit: int | None = None,
    fingerprint_of: Callable[[Entry], str] | None = None,
) -> int:
    """Compiles missing entries and rewrites the report after each one.

    Args:
        entries: all entries, in order.
        report: the Markdown file; results are in the folder `compile_results` next to it.
        notify: called with a sentence for each entry that was compiled, failed or was deleted.
        progress: called with "checking" or "compiling", entries done and entries in all.
        limit: maximum number of entries to compile.
        fingerprint_of: returns the fingerprint of an entry's current program. Finished entries with another
            fingerprint are deleted first. With None, all finished entries are kept.

    Returns:
        Number of entries that are still missing.
    """
    folder = report.parent / RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    if fingerprint_of is not None:
        for entry in stale_entries(entries, folder, progress, fingerprint_of):
            notify(f"{entry.name}: the program has changed, deleted")
            (folder / f"{entry.name}.json").unlink()
    todo = [entry for entry in entries if not (folder / f"{entry.name}.json").exists()][:limit]
    for number, entry in enumerate(todo):
        progress("compiling", number, len(todo))
        notify(f"{entry.name}: {_compile(entry, folder / f'{entry.name}.json')}")
        write_whole(report, markdown(entries, folder))
    write_whole(report, markdown(entries, folder))
    return sum(not (folder / f"{entry.name}.json").exists() for entry in entries)


def _compile(entry: Entry, path: Path) -> str:
    """Compiles an entry and returns the outcome in a few words."""
    command = [sys.executable, "-m", "block_recurrent", *entry.command, "--json", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if not path.exists():
        return f"exit code {ended.returncode}: {(ended.stderr.strip().splitlines() or ['?'])[-1]}"
    one = read_result(path)
    return (
        f"{'fits' if one.fits else 'does not fit'}; {one.compile_seconds:,.0f} s, {_gb(one.host_bytes)} GB to compile"
    )


def stale_entries(
    entries: Sequence[Entry],
    folder: Path,
    progress: StageCallback,
    fingerprint_of: Callable[[Entry], str],
) -> list[Entry]:
    """Returns the finished entries whose program has changed; traces every finished entry and changes no file.

    Args:
        entries: all entries.
        folder: folder of the result files.
        progress: called with "checking", entries done and entries in all.
        fingerprint_of: returns the fingerprint of an entry's current program.
    """
    finished = [entry for entry in entries if (folder / f"{entry.name}.json").exists()]
    stale = []
    for number, entry in enumerate(finished):
        progress("checking", number, len(finished))
        if read_result(folder / f"{entry.name}.json").program != fingerprint_of(entry):
            stale.append(entry)
    return stale


def write_result(path: Path, compiled: CompiledStep) -> None:
    """Writes a result as JSON; the file appears whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        write_whole(path, json.dumps(dataclasses.asdict(compiled), indent=1) + "\n")
    except OSError as error:
        raise InputError(f"--json {path}: cannot be written: {error.strerror}") from None


def read_result(path: Path) -> CompiledStep:
    """Reads a result written by `write_result`."""
    fields: dict[str, Any] = json.loads(path.read_text())
    traffic = {kind: Traffic(**one) for kind, one in fields.pop("traffic").items()}
    return CompiledStep(**fields | {"traffic": traffic, "estimate": Estimate(**fields["estimate"])})


def markdown(entries: Sequence[Entry], folder: Path) -> str:
    """Returns the report: a table for each slice, a row for each entry, `missing` where there is no result."""
    results = {entry: read_result(path) for entry in entries if (path := folder / f"{entry.name}.json").exists()}
    lines = _about(entries, results)
    for topology in dict.fromkeys(entry.topology for entry in entries):
        own = [entry for entry in entries if entry.topology == topology]
        finished = [results[entry] for entry in own if entry in results and entry.step != "decode"]
        chips = f": {finished[0].num_chips} chips, {_gb(finished[0].capacity)} GB each" if finished else ""
        lines += ["", f"## {topology}{chips}", "", _row(HEAD), "|" + "---|" * len(HEAD)]
        lines += [_row([*_names(entry), *_cells(results.get(entry))]) for entry in own]
    return "\n".join(lines) + "\n"


def _about(entries: Sequence[Entry], results: Mapping[Entry, CompiledStep]) -> list[str]:
    without_traffic = any(one.hbm_bytes is None and not one.rejected for one in results.values())
    compilers = " and ".join(sorted({_compiler(one) for one in results.values()})) or "libtpu"
    shared = ", ".join(f"`{file}`" for file in SHARED)
    notes = (
        f"Every experiment is combined with {shared}.",
        f"The compiler of {compilers} reports the memory: all arrays that are in use at the same time, and the "
        "program's code.",
        "FLOPs of the model are counted analytically, a training step as three forward passes.",
        "Decoding is compiled for one chip.",
        *ASSUMPTIONS,
        "Of a program that does not fit, the compiler tells the memory alone (?).",
        *([_WITHOUT_TRAFFIC] if without_traffic else []),
        "Compile times and host memory were measured in a separate process for each entry on a machine with 2 cores. "
        "Some compile times are longer because other programs ran at the same time.",
    )
    return [
        "# Compiled for TPU slices, ahead of time",
        "",
        f"{len(results)} of {len(entries)} entries. Nothing was run on a TPU.",
        "`python -m block_recurrent compile --all` compiles the other entries; with `--check` it first deletes entries "
        "with a changed program.",
        "",
        *(f"* {note}" for note in notes),
    ]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _names(entry: Entry) -> list[str]:
    """Returns the cells that tell an entry from the others of its slice."""
    others = (f"`{param}`" for param in entry.gin_params if param != FUSED)
    kernel = "fused" if FUSED in entry.gin_params else "xla"
    return [" ".join([entry.gin_file.removesuffix(".gin"), *others]), entry.step, kernel]


def _cells(one: CompiledStep | None) -> list[str]:
    if one is None:
        return ["missing"] + [""] * (len(HEAD) - 4)
    parts = " + ".join(_gb(part) for part in (one.parameters, one.optimizer, one.state, one.temporaries))
    return [
        str(one.batch_size),
        "yes" if one.fits else "no",
        _gb(one.peak),
        parts,
        *(["?"] * 4 if one.rejected else _estimate_cells(one)),
        f"{one.flops_per_token:.3g}",
        f"{one.flops:.3g}",
        f"{one.compile_seconds:,.0f} s, {_gb(one.host_bytes)} GB",
        _compiler(one).removeprefix("libtpu "),
    ]


def _estimate_cells(one: CompiledStep) -> list[str]:
    traffic = ", ".join(f"{t.count} {kind} {_gb(t.bytes)}" for kind, t in one.traffic.items()) or "none"
    parts = (one.estimate.compute, one.estimate.memory, one.estimate.communication)
    times = f"{', '.join(f'{seconds * 1e3:,.1f}' for seconds in parts)} ({one.estimate.bound})"
    return [
        "-" if one.hbm_bytes is None else f"{'at least ' * one.unknown_loops}{_gb(one.hbm_bytes)}",
        traffic,
        "-" if one.hbm_bytes is None else times,
        f"{one.estimate.seconds * 1e3:,.0f} ms ({one.estimate.utilisation:.0%})",
    ]


def _compiler(one: CompiledStep) -> str:
    """Returns libtpu and its version."""
    return one.program.partition(",")[0]


def _gb(size: float) -> str:
    return f"{size / _GB:.2f}"
