"""Writes experiments/laptop/README.md and its figure from the results that exist; others appear as missing."""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from etils import epath

from block_recurrent.files import local_path
from block_recurrent.report.pictures import write_pictures
from experiments.laptop import figures
from experiments.laptop.claims import Results, judge, mean_bits
from experiments.laptop.table import HIDDEN, LAPTOP, REC, RESET, SEEDS, SLIDE, XL_4W

_METHOD = """\
**Data:** `gin/data/python_packages.gin`, the source of 293 Python packages as bytes, one document per package; equal
files occur once. Models train on 253 packages (142 million bytes). The whole test split is scored, every token after
a document's first once; nothing was chosen with it.

**Models:** width 128, 2 heads of width 64, 4 layers (Slide:+1 layer has 5); the window has 32 tokens, in XL:4W 128.
Rec has 32 states in its third layer. All rows have 32 rows of 512 tokens in a step (XL:W has 512 rows of 32), 3,000
steps, and the same optimizer and learning rate. Gate and cell are the paper's; nothing deviates from it but the size.

**Search, then test:** [search.md](search.md) is the log of the search, which used one seed and the validation split.
Rules, sizes and seeds were committed before the first of these runs, in commit `1ccd563`. No run is left out.

**Intervals:** 95 %, bootstrap over documents. They show the effect of the choice of documents; the rows with three
seeds show the effect of the seed.
"""
_CURVES = """\
Bits per byte of the validation split's first 245,760 tokens (15,360 of each document), means over seeds.
"""
_STUDY = """\
`python -m experiments.laptop.word_study` compares one pair of models token by token: the best seed of each of the two
rows. A word is a run of letters, digits and underscores; {rule}. Positive: Rec is better.
"""
# Of studies that do not record their rule: words of docstrings, strings and comments count as identifiers too.
_EARLIER_RULE = """\
an identifier is a word of at least two characters that is no
Python keyword and does not start with a digit"""
_COMMANDS = """\
They assume `source .venv/bin/activate`.

```sh
make laptop       # a day on 2 idle cores, minutes on a GPU; may be interrupted, the same command continues
```

runs

```sh
python -m experiments.laptop.step_times                # measures step times, the rows in turns
python -m experiments.tables.run_table --table laptop  # trains and evaluates what is missing, after a download
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


def learning_curves(results: Results) -> str:
    """Returns the validation losses during training, and the advantage of Rec over Slide:+1 layer, as a table."""
    names = [name for name in (SLIDE, REC, XL_4W) if results.get(name)]
    if not {SLIDE, REC} <= set(names):
        return "Not known yet."
    means = {name: _mean_curve(results[name]) for name in names}
    heads = ["tokens trained", *names, "Rec minus Slide:+1", "least, greatest of all pairs of seeds"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for tokens, slide in means[SLIDE].items():
        bits = [f"{means[name][tokens]:.4f}" for name in names]
        ours, theirs = (_at(results[name], tokens) for name in (REC, SLIDE))
        pairs = f"{min(ours) - max(theirs):+.4f}, {max(ours) - min(theirs):+.4f}"
        lines.append(f"| {tokens / 1e6:.1f} M | {' | '.join(bits)} | {means[REC][tokens] - slide:+.4f} | {pairs} |")
    return "\n".join(lines)


def _at(seeds: list[dict[str, Any]], tokens: int) -> list[float]:
    found = [line for result in seeds for line in result["learning_curve"] if line["tokens_trained"] == tokens]
    return [line["bits_per_byte"] for line in found]


def _mean_curve(seeds: list[dict[str, Any]]) -> dict[int, float]:
    tokens = [line["tokens_trained"] for line in seeds[0]["learning_curve"] if line["tokens_trained"]]
    return {count: statistics.mean(_at(seeds, count)) for count in tokens}


def _study(study: dict[str, Any] | None) -> str:
    rule = (study or {}).get("rule")
    return _STUDY.format(rule=_EARLIER_RULE if rule is None else rule)


def word_study(study: dict[str, Any] | None) -> str:
    """Returns what `experiments.laptop.word_study` found, as tables."""
    if study is None:
        return "Not measured yet."
    lines = ["| word | last occurrence | words | Slide:+1, bits per word | Rec saves |", "|---|---|---|---|---|"]
    for group in study["words"]:
        kind = "identifier" if group["name"] else "other"
        saved = _interval(group["improvement"])
        lines.append(f"| {kind} | {group['reach']} | {group['words']:,} | {group['baseline_bits']:.3f} | {saved} |")
    lines += ["", "| position in the document | Rec saves, bits per byte |", "|---|---|"]
    for part in study["positions"]:
        lines.append(f"| {part['low']:,} to {part['high'] - 1:,} | {_interval(part['improvement'])} |")
    reach = f"`inside` the window of {study['window']} tokens before the word, `beyond` it, or `never` before"
    return "\n".join([*lines, "", f"Last occurrence of the same word in the document: {reach}."])


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:+.4f} [{estimate['low']:+.4f}, {estimate['high']:+.4f}]"


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
    devices = sorted({result["machine"]["devices"] for result in found})
    stores = {result["evaluation"]["store_fingerprint"] for result in found}
    lines = [
        f"* Data: {about['store']}, split {about['split']}: {about['scored_tokens']:,} scored tokens of "
        f"{about['documents']} documents, fingerprint {', '.join(sorted(stores))}.",
        f"* Training: {first['steps']:,} steps, {first['tokens_trained']:,} tokens per run.",
        f"* Trained and evaluated on {', '.join(devices)}; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + ".",
        "* Each file in `results/` contains its commands, seed, fingerprints of data and parameters, seconds, and the "
        "loss of every document.",
    ]
    return "\n".join(lines)


def page(results: Results, seconds: dict[str, float], picture: bool, study: dict[str, Any] | None = None) -> str:
    image = "![Bits per byte against step time](bits_by_step_time.svg)\n\n" if picture else ""
    curves = "![Validation loss against tokens trained](learning_curves.svg)\n\n" if picture else ""
    about = f"`{RESET}` and `{HIDDEN}` are evaluations of the `{REC}` models. Lower is better. "
    about += "Step times are of 2 CPU cores, the rows in turns; training times are of the device below."
    return (
        "# The paper's comparison at laptop size\n\n"
        "Written by `experiments/laptop/report.py`; do not edit. `missing`: not run or measured yet.\n\n"
        f"## Claims\n\n{claims(results, seconds)}\n\n"
        f"## Table\n\n{table(results, seconds)}\n\n{about}\n\n{image}"
        f"## Learning curves\n\n{_CURVES}\n{curves}"
        f"{learning_curves(results)}\n\n"
        f"## Where the advantage lies\n\n{_study(study)}\n{word_study(study)}\n\n"
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
    study = arguments.folder / "word_study.json"
    words = json.loads(study.read_text()) if study.exists() else None
    picture = bool(results and seconds)
    if picture:
        for figure in (figures.bits_by_step_time(results, seconds), figures.learning_curves(results)):
            write_pictures(figure, epath.Path(arguments.folder))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "README.md").write_text(page(results, seconds, picture, words), encoding="utf-8")
    for claim in judge(results, seconds):
        print(f"{claim.verdict:9} {claim.text} {claim.figures}")
    print(f"written to {arguments.folder / 'README.md'}")


if __name__ == "__main__":
    main()
