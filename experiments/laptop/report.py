"""Writes experiments/laptop/README.md and its figure from the results that exist; others appear as missing."""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import altair as alt
from etils import epath

from block_recurrent.files import local_path
from block_recurrent.report.figures import Figure
from block_recurrent.report.pictures import write_pictures
from experiments.laptop.claims import Results, judge, mean_bits
from experiments.laptop.table import LAPTOP, REC, RESET, SEEDS, SLIDE

_METHOD = """\
**Data:** the source of Python's standard library, as bytes. The whole validation split is scored, every token after a
document's first once. No setting was chosen with it. The test split is not used, because a single file of
documentation is two fifths of it.

**Models:** all rows have 4 layers (one has 5) and width 128, and share the optimizer, the learning rate, the number of
steps and the tokens per step. XL:W, Slide and Rec have a window of 128 tokens, XL:4W one of 512.

**Tuning:** none, for no row. The learning rate is the quickstart's, which was chosen before this comparison. Heads and
window were chosen by step time alone, so that XL:4W costs about twice as much as Slide, as in the paper. The table
states the number of runs of each row; no run is left out.

**Intervals:** 95 %, bootstrap over documents. They show the effect of the choice of documents; the rows with two seeds
show the effect of the seed. One data set, one size and at most two seeds do not prove a general law.
"""
_COMMANDS = """\
```sh
make laptop       # about 90 minutes on 2 idle cores; may be interrupted, the same command continues
```

runs

```sh
python -m experiments.laptop.step_times                # measures step times, the rows in turns
python -m experiments.tables.run_table --table laptop  # trains and evaluates rows without a file in results/
python -m experiments.laptop.report                    # writes this page
```
"""


def read_results(folder: Path) -> Results:
    """Reads the result files, by row and in the order of seeds."""
    results: Results = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        results.setdefault(result["row"], []).append(result)
    return results


def table(results: Results, seconds: dict[str, float]) -> str:
    heads = (
        "row",
        "seeds",
        "bits per byte, by seed",
        "mean",
        "step time",
        "relative to Slide:+1",
        "parameters",
        "training time",
    )
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in LAPTOP.rows:
        name = REC if row.ablation else row.name
        found, wanted = results.get(name, []), len(SEEDS.get(name, (0,)))
        step = f"{seconds[name] * 1e3:.0f} ms" if name in seconds else "missing"
        relative = f"{seconds[name] / seconds[SLIDE]:.2f}" if name in seconds else "missing"
        if not found:
            cells = [f"0 of {wanted}", "missing", "missing", step, relative, "missing", "missing"]
        elif row.ablation:
            bits = [result["ablations"][row.ablation]["bits_per_byte"] for result in found]
            mean = f"{statistics.mean(bits):.4f}"
            cells = [f"{len(found)} of {wanted}", _list(bits), mean, "", "", "the same weights", ""]
        else:
            bits = [result["evaluation"]["bits_per_byte"]["value"] for result in found]
            minutes = ", ".join(f"{result['training_seconds'] / 60:.1f}" for result in found)
            cells = [f"{len(found)} of {wanted}", _list(bits), f"{mean_bits(found):.4f}", step, relative]
            cells += [f"{found[0]['parameters']:,}", f"{minutes} min"]
        lines.append("| " + " | ".join([row.name, *cells]) + " |")
    return "\n".join(lines)


def claims(results: Results, seconds: dict[str, float]) -> str:
    lines = ["| claim | verdict | figures | shown if |", "|---|---|---|---|"]
    for claim in judge(results, seconds):
        lines.append(f"| {claim.text} | **{claim.verdict}** | {claim.figures} | {claim.rule} |")
    return "\n".join(lines)


def provenance(results: Results) -> str:
    found = [result for seeds in results.values() for result in seeds]
    if not found:
        return "No run has finished yet."
    first, about = found[0], found[0]["evaluation"]
    machine = first["machine"]
    stores = {result["evaluation"]["store_fingerprint"] for result in found}
    lines = [
        f"* Data: {about['store']}, split {about['split']}: {about['scored_tokens']:,} scored tokens of "
        f"{about['documents']} documents, fingerprint {', '.join(sorted(stores))}.",
        f"* Training: {first['steps']:,} steps, {first['tokens_trained']:,} tokens per run.",
        f"* Machine: {machine['cores']} cores, {machine['machine']}, {machine['devices']}; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + ".",
        "* Each file in `results/` contains its commands, seed, fingerprints of data and parameters, seconds, and the "
        "loss of every document.",
    ]
    return "\n".join(lines)


def figure(results: Results, seconds: dict[str, float]) -> Figure:
    rows = [
        {"row": name, "milliseconds": seconds[name] * 1e3, "bits": result["evaluation"]["bits_per_byte"]["value"]}
        for name, seeds in results.items()
        for result in seeds
        if name in seconds
    ]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=90, opacity=0.9)
        .encode(
            x=alt.X("milliseconds:Q", title="step time, milliseconds", scale=alt.Scale(zero=False)),
            y=alt.Y("bits:Q", title="bits per byte, validation split", scale=alt.Scale(zero=False)),
            color=alt.Color("row:N", title=None, sort=[row.name for row in LAPTOP.rows]),
        )
        .properties(height=320)
    )
    text = "Bits per byte on the validation split against step time, one point per run."
    return Figure(name="bits_by_step_time", title="Laptop reproduction", text=text, runs=(), spec=chart.to_dict())


def page(results: Results, seconds: dict[str, float], picture: bool) -> str:
    image = "![Bits per byte against step time](bits_by_step_time.svg)\n\n" if picture else ""
    about_reset = f"`{RESET}` is an evaluation of the `{REC}` models. Lower is better."
    return (
        "# The paper's comparison at laptop size\n\n"
        "Written by `experiments/laptop/report.py`; do not edit. `missing`: not run or measured yet.\n\n"
        f"## Claims\n\n{claims(results, seconds)}\n\n"
        f"## Table\n\n{table(results, seconds)}\n\n{about_reset}\n\n{image}"
        f"## Method\n\n{_METHOD}\n## Commands\n\n{_COMMANDS}\n## Provenance\n\n{provenance(results)}\n"
    )


def _list(bits: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in bits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=local_path, default=Path("experiments/laptop"), help="[default: %(default)s]")
    arguments = parser.parse_args()
    results = read_results(arguments.folder / "results")
    times = arguments.folder / "step_times.json"
    measured: dict[str, Any] = json.loads(times.read_text()) if times.exists() else {"seconds_per_step": {}}
    seconds = measured["seconds_per_step"]
    picture = bool(results and seconds)
    if picture:
        write_pictures(figure(results, seconds), epath.Path(arguments.folder))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "README.md").write_text(page(results, seconds, picture), encoding="utf-8")
    for claim in judge(results, seconds):
        print(f"{claim.verdict:9} {claim.text} {claim.figures}")
    print(f"written to {arguments.folder / 'README.md'}")


if __name__ == "__main__":
    main()
