"""The command `compile`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from block_recurrent.cli import gin_files, interruption
from block_recurrent.cli.options import CONSOLE, GinFiles, GinParams
from block_recurrent.errors import InputError
from block_recurrent.files import local_path
from block_recurrent.progress import Stages

if TYPE_CHECKING:
    from block_recurrent.aot.compile import CompiledStep
    from block_recurrent.aot.compile_report import Entry
    from block_recurrent.aot.topology import Topology
    from block_recurrent.config import RunConfig

REPORT = Path("experiments/tpu/compile_report.md")
SLICES = ("v4:2x2x4", "v5e:4x8", "v5p:2x2x2", "v6e:4x4")  # v4-32, v5e-32, v5p-16, v6e-16


def compile(
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
    topology: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHIP:SHAPE",
            help="Slice: v4:2x2x4, v5e:4x8, v5p:2x2x2, v6e:4x4, tpu7x:2x2x1, ... Repeatable with --all.",
        ),
    ] = None,
    step: Annotated[
        list[str] | None, typer.Option(help="train (default), evaluate or decode. Repeatable.", metavar="STEP")
    ] = None,
    largest_batch: Annotated[
        bool,
        typer.Option("--largest-batch", help="Also find the largest batch that trains; compiles three more times."),
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=local_path, help="Also write the result as JSON; needs a single --step."),
    ] = None,
    all_files: Annotated[
        bool, typer.Option("--all", help="Compile every file of gin/table1, table2 and, for the first slice, scaling.")
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="FILE", parser=local_path, help="Report of --all; finished entries are kept.")
    ] = REPORT,
    limit: Annotated[int | None, typer.Option(min=1, help="With --all: maximum number of entries to compile.")] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="With --all: first delete finished entries whose program has changed."),
    ] = False,
    list_only: Annotated[
        bool, typer.Option("--list", help="With --all --check: list these entries; delete and compile nothing.")
    ] = False,
) -> None:
    r"""Compile a run's steps for a TPU slice without a TPU: memory, collectives and an estimate of step time.

    Needs libtpu (pip install 'block-recurrent\[tpu]'). Exit code 1 if a step does not fit.

    Example: python -m block_recurrent compile --gin-file gin/table1/rec_fixed_skip.gin --gin-file
    gin/data/pg19_tokens.gin --gin-file gin/recipes/cosine.gin --gin-file gin/hardware/tpu.gin --topology v4:2x2x4
    """
    from block_recurrent.aot.steps import STEPS
    from block_recurrent.aot.topology import Topology

    steps = step or ["train"]
    if unknown := [name for name in steps if name not in STEPS]:
        raise InputError(f"--step {unknown[0]}: must be one of {', '.join(STEPS)}")
    topologies = [Topology.parse(name) for name in topology or (SLICES if all_files else ())]
    if all_files:
        one_run = {"--gin-file": gin_file, "--gin-param": gin_param, "--step": step, "--json": json}
        _refuse("does not go with --all", one_run | {"--largest-batch": largest_batch})
        if list_only and not check:
            raise InputError("--list: goes with --all --check")
        _complete_report([one.name for one in topologies], out, limit, check=check, list_only=list_only)
        return
    _refuse("goes with --all", {"--limit": limit, "--check": check, "--list": list_only})
    if len(topologies) != 1:
        raise InputError(f"--topology: {len(topologies)} given; name one slice, such as v4:2x2x4")
    if json is not None and len(steps) > 1:
        raise InputError("--json: holds one result; give one --step")
    gin_files.parse(gin_file, gin_param)
    run = gin_files.configured_run()
    fits = [_compile(name, run, topologies[0], json) for name in steps]
    if largest_batch:
        from block_recurrent.aot.largest_batch import largest_batch as find

        CONSOLE.print(find(run, topologies[0]), highlight=False)
    raise typer.Exit(0 if all(fits) else 1)


def _compile(step: str, run: "RunConfig", topology: "Topology", json: Path | None) -> bool:
    from block_recurrent.aot.advice import advice
    from block_recurrent.aot.compile import compile_step
    from block_recurrent.aot.compile_report import write_result

    with CONSOLE.status(f"compiling the {step} step for {topology.name}: one to three minutes"):
        compiled = compile_step(step, run, topology)
    _show(compiled, advice(compiled, run))
    if json is not None:
        write_result(json, compiled)
    return compiled.fits


def _refuse(reason: str, options: Mapping[str, object]) -> None:
    if given := [name for name, value in options.items() if value]:
        raise InputError(f"{given[0]}: {reason}")


def _show(compiled: "CompiledStep", advice: str) -> None:
    from block_recurrent.aot.roofline import ASSUMPTIONS
    from block_recurrent.cli import console

    rows = [
        ("fits", "yes" if compiled.fits else f"no: {advice}"),
        ("peak use of a chip's HBM", f"{compiled.peak / 1e9:.2f} of {compiled.capacity / 1e9:.1f} GB"),
        ("parameters", f"{compiled.parameters / 1e9:.2f} GB"),
        ("optimizer state", f"{compiled.optimizer / 1e9:.2f} GB"),
        ("caches and recurrent states", f"{compiled.state / 1e9:.2f} GB"),
        ("temporaries", f"{compiled.temporaries / 1e9:.2f} GB"),
        ("program code", "unknown" if compiled.rejected else f"{compiled.code / 1e9:.2f} GB"),
        ("batch", f"{compiled.batch_size} rows, {compiled.tokens:,} tokens"),
        ("FLOPs per token, FLOPs per step", f"{compiled.flops_per_token:.4g}, {compiled.flops:.4g}"),
        *[(kind, f"{t.count} per step, {t.bytes / 1e6:,.1f} MB") for kind, t in compiled.traffic.items()],
        ("time of tracing, compiling", f"{compiled.lower_seconds:.0f} s, {compiled.compile_seconds:.0f} s"),
        ("host memory", f"{compiled.host_bytes / 1e9:.2f} GB"),
    ]
    if not compiled.rejected:
        rows += _estimate_rows(compiled)
    console.table(CONSOLE, (f"{compiled.step} on {compiled.topology}, {compiled.num_chips} chip(s)", ""), rows)
    if not compiled.rejected:
        CONSOLE.print("\n".join(ASSUMPTIONS), highlight=False)


def _estimate_rows(compiled: "CompiledStep") -> list[tuple[str, str]]:
    parts = compiled.estimate
    at_least = "at least " if compiled.unknown_loops else ""
    return [
        ("HBM traffic of a chip", f"{at_least}{(compiled.hbm_bytes or 0) / 1e9:,.2f} GB per step"),
        (
            "time at full rate",
            f"arithmetic {parts.compute * 1e3:.1f} ms, memory {parts.memory * 1e3:.1f}, collectives "
            f"{parts.communication * 1e3:.1f}; the longest: {parts.bound}",
        ),
        ("estimated step", f"{at_least}{parts.seconds * 1e3:.1f} ms; utilisation {parts.utilisation:.0%}"),
    ]


def _complete_report(topologies: list[str], out: Path, limit: int | None, *, check: bool, list_only: bool) -> None:
    from block_recurrent.aot.compile_report import complete_report

    entries = report_entries(topologies)
    if list_only:
        _list_stale_entries(entries, out)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    interruption.keeps(f"{out}: the finished entries are kept; the same command continues", resumable=True)
    with Stages("compile --all", CONSOLE) as stages:
        missing = complete_report(
            entries,
            out,
            lambda text: CONSOLE.print(text, highlight=False, soft_wrap=True),
            stages,
            limit=limit,
            fingerprint_of=_fingerprint_of if check else None,
        )
    CONSOLE.print(f"{out}: {len(entries) - missing} of {len(entries)} entries", highlight=False)


def report_entries(topologies: list[str]) -> "list[Entry]":
    """Returns the entries of `compile --all` in the report's order.

    Raises:
        InputError: the current folder has no experiment files.
    """
    from block_recurrent.aot.compile_report import ADJUSTED, ALL_STEPS_FILES, FOLDERS, FUSED, Entry

    root = Path("gin")
    tables, scaling = _files(root, FOLDERS[:2]), _files(root, FOLDERS[2:])
    if not tables:
        raise InputError(f"compile --all: no files in {', '.join(f'gin/{folder}' for folder in FOLDERS)}")

    def entries_of(
        files: Iterable[str],
        *steps: str,
        slices: list[str] = topologies,
        params: Iterable[tuple[str, ...]] = ((),),
    ) -> list[Entry]:
        return [
            Entry(gin_file=file, topology=name, step=step, gin_params=one)
            for name in slices
            for file in files
            for step in steps
            for one in params
        ]

    with_both_kernels = entries_of(tables, "train", params=((), (FUSED,)))
    entries = with_both_kernels + [entry for entry in ADJUSTED if entry.topology in topologies]
    entries += entries_of(ALL_STEPS_FILES, "evaluate", "decode")
    # One slice: these models differ from the tables' in size alone.
    return entries + entries_of(scaling, "train", slices=topologies[:1])


def _list_stale_entries(entries: "list[Entry]", out: Path) -> None:
    from block_recurrent.aot.compile_report import RESULTS, stale_entries

    with Stages("compile --all --check --list", CONSOLE) as stages:
        stale = stale_entries(entries, out.parent / RESULTS, stages, _fingerprint_of)
    for entry in stale:
        CONSOLE.print(entry.name, highlight=False, soft_wrap=True)
    CONSOLE.print(f"{out}: {len(stale)} stale entries; nothing was deleted", highlight=False)


def _fingerprint_of(entry: "Entry") -> str:
    from block_recurrent.aot.compile import program_fingerprint
    from block_recurrent.aot.topology import Topology

    gin_files.parse(entry.gin_files, list(entry.gin_params))
    return program_fingerprint(entry.step, gin_files.configured_run(), Topology.parse(entry.topology))


def _files(root: Path, folders: Iterable[str]) -> list[str]:
    return [f"{folder}/{path.name}" for folder in folders for path in sorted((root / folder).glob("*.gin"))]
