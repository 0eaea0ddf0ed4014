"""Many compiled steps as one table, made entry by entry: what is finished stays, and the next call goes on."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from block_recurrent.aot.collectives import Traffic
from block_recurrent.aot.compile import CompiledStep
from block_recurrent.aot.roofline import ASSUMPTIONS, Estimate
from block_recurrent.errors import InputError

RESULTS = "compile_results"  # the folder of finished entries, beside the report
FOLDERS = ("table1", "table2", "scaling")  # of gin/, whose files `compile --all` goes through
ALL_STEPS = ("table1/rec_fixed_skip.gin", "table1/slide_13l.gin", "table1/xl_512.gin")  # evaluated and decoded, too
SHARED = ("gin/data/pg19_tokens.gin", "gin/recipes/cosine.gin", "gin/hardware/tpu.gin")
_GB = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the report.

    Attributes:
        gin_file: the experiment, below `gin/`.
        topology: the slice.
        step: `train`, `evaluate` or `decode`.
        gin_params: what this entry binds besides.
    """

    gin_file: str
    topology: str
    step: str
    gin_params: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its file's stem: one line, one file."""
        parts = (self.gin_file.removesuffix(".gin"), self.topology, self.step, *self.gin_params)
        return "__".join(re.sub(r"[/:=]", "_", part) for part in parts)

    @property
    def gin_files(self) -> list[str]:
        """The experiment's files, and what every experiment is combined with."""
        return [f"gin/{self.gin_file}", *SHARED]

    @property
    def command(self) -> list[str]:
        """What computes it, in a process of its own: its memory is then its own."""
        arguments = [text for file in self.gin_files for text in ("--gin_file", file)]
        arguments += [text for param in self.gin_params for text in ("--gin_param", param)]
        return ["compile", *arguments, "--topology", self.topology, "--step", self.step]


# What a slice has no room for as it is, with what `advice` names first.
MADE_TO_FIT = (
    Entry(gin_file="table2/rec_1300m.gin", topology="v5e:4x8", step="train", gin_params=("MeshConfig.fsdp=8",)),
)


def complete_report(
    entries: Sequence[Entry],
    report: Path,
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None],
    *,
    limit: int | None = None,
    program_of: Callable[[Entry], str] | None = None,
) -> int:
    """Compiles what is missing, and writes the report anew after each entry.

    Args:
        entries: all lines, in order.
        report: the Markdown file; results lie in `compile_results` beside it.
        say: told what was compiled, what failed and what was deleted.
        progress: told what goes on, how much of it is done and how much there is.
        limit: how many entries to compile at most.
        program_of: the program that an entry is today. Finished entries of another one are deleted first; without it
            they all stay.

    Returns:
        How many entries are still missing.
    """
    folder = report.parent / RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    if program_of is not None:
        for entry in stale_entries(entries, folder, progress, program_of):
            say(f"{entry.name}: of another program, deleted")
            (folder / f"{entry.name}.json").unlink()
    todo = [entry for entry in entries if not (folder / f"{entry.name}.json").exists()][:limit]
    for number, entry in enumerate(todo):
        progress("compiling", number, len(todo))
        say(f"{entry.name}: {_compile(entry, folder / f'{entry.name}.json')}")
        report.write_text(markdown(entries, folder))
    report.write_text(markdown(entries, folder))
    return sum(not (folder / f"{entry.name}.json").exists() for entry in entries)


def _compile(entry: Entry, path: Path) -> str:
    """Compiles an entry and says in a few words what came of it."""
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
    progress: Callable[[str, int, int], None],
    program_of: Callable[[Entry], str],
) -> list[Entry]:
    """Finished entries whose program is another one today; each is traced, nothing is changed.

    Args:
        entries: all lines.
        folder: the finished entries' results.
        progress: called with "checking", entries done and entries in all.
        program_of: the program that an entry is today.
    """
    finished = [entry for entry in entries if (folder / f"{entry.name}.json").exists()]
    stale = []
    for number, entry in enumerate(finished):
        progress("checking", number, len(finished))
        if read_result(folder / f"{entry.name}.json").program != program_of(entry):
            stale.append(entry)
    return stale


def write_result(path: Path, compiled: CompiledStep) -> None:
    """Writes a result as JSON; the file appears whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(dataclasses.asdict(compiled), indent=1) + "\n")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"--json {path}: cannot be written: {error.strerror}") from None


def read_result(path: Path) -> CompiledStep:
    """Reads what `write_result` wrote."""
    fields: dict[str, Any] = json.loads(path.read_text())
    traffic = {kind: Traffic(**one) for kind, one in fields.pop("traffic").items()}
    return CompiledStep(**fields | {"traffic": traffic, "estimate": Estimate(**fields["estimate"])})


def markdown(entries: Sequence[Entry], folder: Path) -> str:
    """The report: a line for each entry, empty where it is missing."""
    head = (
        "experiment",
        "slice (chips)",
        "step",
        "rows",
        "fits",
        "GB a chip: parameters + optimizer + state + temporaries, peak of HBM",
        "collectives (GB)",
        "FLOPs a token",
        "FLOPs a step",
        "estimate (utilisation)",
        "compile, host memory",
    )
    lines = ["# Compiled for TPU slices, ahead of time", "", _about(entries, folder), ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for entry in entries:
        path = folder / f"{entry.name}.json"
        cells = _cells(read_result(path)) if path.exists() else ["missing"] * (len(head) - 3)
        chips = f" ({read_result(path).num_chips})" if path.exists() else ""
        name = " ".join([entry.gin_file.removesuffix(".gin"), *(f"`{param}`" for param in entry.gin_params)])
        lines.append("| " + " | ".join([name, entry.topology + chips, entry.step, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _about(entries: Sequence[Entry], folder: Path) -> str:
    finished = [path for entry in entries if (path := folder / f"{entry.name}.json").exists()]
    compilers = " and ".join(sorted({read_result(path).program.partition(",")[0] for path in finished})) or "libtpu"
    shared = " ".join(f"`{file}`" for file in SHARED)
    return (
        f"{len(finished)} of {len(entries)} entries. Made and continued by `python -m block_recurrent compile --all`; "
        f"with `--check` entries of programs that have changed since are made again. Every experiment is combined with "
        f"{shared}. Nothing here was run on a TPU: memory is what the compiler of {compilers} "
        f"allots, FLOPs are counted analytically (training is three forward passes). {ASSUMPTIONS} Seconds and "
        "host memory are of a process of its own on a machine with 2 cores (more seconds where others ran)."
    )


def _cells(one: CompiledStep) -> list[str]:
    parts = " + ".join(_gb(part) for part in (one.parameters, one.optimizer, one.state, one.temporaries))
    traffic = ", ".join(f"{t.count} {kind} {_gb(t.bytes)}" for kind, t in one.traffic.items()) or "none"
    known = one.code > 0  # a program that the compiler refused has none
    time = f"{one.estimate.step * 1e3:,.0f} ms ({one.estimate.utilisation:.0%})"
    return [
        str(one.batch_size),
        "yes" if one.fits else "no",
        f"{parts}, {_gb(one.peak)} of {_gb(one.capacity)}",
        traffic if known else "?",
        f"{one.flops_per_token:.3g}",
        f"{one.flops:.3g}",
        time if known else "?",
        f"{one.compile_seconds:,.0f} s, {_gb(one.host_bytes)} GB",
    ]


def _gb(size: float) -> str:
    return f"{size / _GB:.2f}"
