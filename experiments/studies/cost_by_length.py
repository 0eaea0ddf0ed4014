"""Measures training time by document length for five architectures: `python -m experiments.studies.cost_by_length`.

A measurement is training on one document of 1,024 to 65,536 random tokens, forward and backward through the whole
document. The vanilla transformer attends to the whole document. XL processes one segment after another and
attends to its window and the previous one. Slide and Rec process the document block by block, the LSTM token by token.
The models are those of `gin/laptop/`.

Every measurement is saved at once, and an interrupted run continues. Writes the table as JSON and Markdown, with the
exponent b of the fit seconds ~ length ** b, and a figure as PNG and SVG.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import altair as alt
import jax
import numpy as np
from etils import epath

from block_recurrent.cli import gin_files
from block_recurrent.config import RunConfig
from block_recurrent.files import local_path, write_whole
from block_recurrent.report.figures import Figure
from block_recurrent.report.pictures import write_pictures
from experiments.benchmarks.random_tokens import compile_step, repeat

MODELS = {
    "vanilla": "gin/laptop/vanilla.gin",
    "LSTM": "gin/laptop/lstm.gin",
    "XL": "gin/laptop/xl_w.gin",
    "Slide": "gin/laptop/slide.gin",
    "Rec:fixed:skip": "gin/laptop/rec_fixed_skip.gin",
}
LENGTHS = tuple(1024 * 2**power for power in range(7))
FIT_FROM = 2048  # constant costs distort the exponent at shorter lengths
MEASURED_SECONDS = 8.0  # of at least two steps
USABLE_SHARE = 0.8  # of the machine's memory


def run_of(gin_file: str, length: int) -> tuple[RunConfig, int]:
    """Returns the configuration of one row that processes a document of this length, and its number of steps."""
    gin_files.parse([gin_file], ["DataConfig.batch_size=1"])
    run = gin_files.configured_run()
    if run.model.window_length == run.data.segment_length:  # XL: one window at a time
        return run, length // run.data.segment_length
    return dataclasses.replace(run, data=dataclasses.replace(run.data, segment_length=length)), 1


def measure(run: RunConfig, steps: int) -> dict[str, Any]:
    """Returns the median seconds for a document over repeated steps; None if the step does not fit into memory."""
    step = compile_step(run)
    needed = step.memory_analysis().temp_size_in_bytes
    if needed > USABLE_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        return {"seconds": None, "gigabytes": needed / 1e9}
    run_steps = repeat(step, run)
    run_steps()
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < MEASURED_SECONDS:
        start = time.perf_counter()
        run_steps()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": statistics.median(seconds) * steps,
        "steps": steps,
        "repetitions": len(seconds),
        "gigabytes": needed / 1e9,
    }


def exponent(points: dict[str, dict[str, Any]]) -> float | None:
    """Returns the least-squares slope of log seconds over log length; None with fewer than two lengths."""
    chosen = [(int(length), point["seconds"]) for length, point in points.items() if int(length) >= FIT_FROM]
    chosen = [(length, seconds) for length, seconds in chosen if seconds is not None]
    if len(chosen) < 2:
        return None
    lengths, seconds = np.log(np.array(chosen)).T
    return float(np.polyfit(lengths, seconds, 1)[0])


def as_markdown(record: dict[str, Any]) -> str:
    heads = ["document length in tokens", *(f"{length:,}" for length in LENGTHS), f"exponent from {FIT_FROM:,}"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, points in record["measurements"].items():
        cells = []
        for length in LENGTHS:
            point = points.get(str(length))
            seconds = None if point is None else point["seconds"]
            cells.append("not measured" if point is None else "memory" if seconds is None else f"{seconds:.3g} s")
        power = exponent(points)
        lines.append("| " + " | ".join([name, *cells, "-" if power is None else f"{power:.2f}"]) + " |")
    machine = f"{record['cores']} cores ({record['machine']}), jax {record['jax']}"
    text = (
        f"Seconds of training on one document, forward and backward, on {machine}. Models of `gin/laptop/`. "
        "`memory`: the step needs more than four fifths of the machine's memory."
    )
    return f"# Cost by document length\n\n{text}\n\n" + "\n".join(lines) + "\n"


def figure(record: dict[str, Any]) -> Figure:
    rows = [
        {"model": name, "tokens": int(length), "seconds": point["seconds"]}
        for name, points in record["measurements"].items()
        for length, point in points.items()
        if point["seconds"] is not None
    ]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X(
                "tokens:Q",
                title="tokens of the document",
                scale=alt.Scale(type="log", base=2, nice=False),
                axis=alt.Axis(values=LENGTHS),
            ),
            y=alt.Y("seconds:Q", title="seconds of training", scale=alt.Scale(type="log")),
            color=alt.Color("model:N", title=None, sort=list(MODELS)),
        )
        .properties(height=320)
    )
    text = "Seconds of training on one document against its length, both logarithmic, one line per architecture."
    return Figure(name="cost_by_length", title="Cost by document length", text=text, runs=(), spec=chart.to_dict())


def complete(record: dict[str, Any], path: Path, lengths: list[int], models: list[str]) -> None:
    """Takes the missing measurements, shortest documents first, and saves the record after each one."""
    for length, name in ((length, name) for length in lengths for name in models):
        points = record["measurements"][name]
        if str(length) in points:
            continue
        if any(point["seconds"] is None for point in points.values()):  # a shorter document did not fit
            points[str(length)] = {"seconds": None, "gigabytes": None}
        else:
            points[str(length)] = measure(*run_of(MODELS[name], length))
        seconds = points[str(length)]["seconds"]
        print(f"{name:15} {length:7,} tokens: {'memory' if seconds is None else f'{seconds:.3f} s'}", flush=True)
        record["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record["exponents"] = {name: exponent(points) for name, points in record["measurements"].items()}
        write_whole(path, json.dumps(record, indent=1) + "\n")
        jax.clear_caches()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=local_path, default=Path("experiments/studies/results"), help="[default: %(default)s]"
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument(
        "--longest", type=int, default=LENGTHS[-1], help="longest document, in tokens [default: %(default)s]"
    )
    arguments = parser.parse_args()
    path = arguments.folder / "cost_by_length.json"
    record: dict[str, Any] = {"measurements": {name: {} for name in MODELS}}
    if path.exists():
        record = json.loads(path.read_text())
    record |= {"cores": os.cpu_count(), "machine": platform.machine(), "jax": jax.__version__}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    complete(record, path, [length for length in LENGTHS if length <= arguments.longest], arguments.models)
    (arguments.folder / "cost_by_length.md").write_text(as_markdown(record), encoding="utf-8")
    write_pictures(figure(record), epath.Path(arguments.folder))
    print(as_markdown(record))


if __name__ == "__main__":
    main()
