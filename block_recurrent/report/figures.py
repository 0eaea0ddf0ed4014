"""Figures of scores: learning curves, checkpoints, loss and improvement by position.

Figures are Vega-Lite specifications; the page draws them, and `pictures.py` writes them to files. Each has a parameter
`runs`, the names of the selected runs, which the controls of the page set.
"""

import itertools

import altair as alt

from block_recurrent.evaluation.records import DataSet
from block_recurrent.evaluation.run_results import ResultSet
from block_recurrent.report.charts import (
    DASHES,
    Figure,
    Rows,
    axis,
    bin_rows,
    chart_of,
    color_of_runs,
    data_name,
    interval_row,
    lines,
    log_positions,
    make_figure,
)


def learning(results: ResultSet) -> Figure | None:
    """Returns the figure of training and validation loss, as the runs logged them."""
    rows: Rows = []
    for run in results.runs:
        for line in run.metrics:
            if line.get("bits_per_byte") is not None and line["group"] != "speed":
                kind = "training" if line["group"] == "train" else line["group"]
                rows.append({"run": run.name, "step": line["step"], "what": kind, "bits": line["bits_per_byte"]})
    if not rows:
        return None
    base = chart_of(rows).encode(
        x=alt.X("step:Q", title="training steps", axis=axis(",d")),
        y=alt.Y("bits:Q", title="bits per byte", scale=alt.Scale(type="log", nice=False)),
        color=color_of_runs(results, rows),
        tooltip=["run:N", "what:N", "step:Q", alt.Tooltip("bits:Q", title="bits per byte", format=".4f")],
    )
    training = base.transform_filter("datum.what == 'training'").mark_line(strokeWidth=1.2, opacity=0.7)
    evaluated = base.transform_filter("datum.what != 'training'").mark_line(
        strokeWidth=1.2, strokeDash=[4, 3], point=alt.OverlayMarkDef(filled=True, size=70, opacity=1)
    )
    text = (
        "Bits per byte by training step, on a logarithmic scale. Lines: training batches, as logged. Dots on dashes: "
        "evaluations during training."
    )
    return make_figure(training + evaluated, rows, name="learning", title="Learning curves", text=text)


def throughput(results: ResultSet) -> Figure | None:
    """Returns the figure of training speed, as the runs logged it."""
    rows: Rows = [
        {"run": run.name, "step": line["step"], "speed": line["tokens_per_second"]}
        for run in results.runs
        for line in run.metrics
        if line["group"] == "speed"
    ]
    if not rows:
        return None
    chart = chart_of(rows).mark_line(strokeWidth=1.5, point=alt.OverlayMarkDef(size=16)).encode(
        x=alt.X("step:Q", title="training steps", axis=axis(",d")),
        y=alt.Y("speed:Q", title="tokens per second", axis=axis(",d", 5), scale=alt.Scale(domainMin=0)),
        color=color_of_runs(results, rows),
        tooltip=["run:N", "step:Q", alt.Tooltip("speed:Q", title="tokens per second", format=",.0f")],
    )  # fmt: skip
    text = (
        "Trained tokens per second between two lines of the log, without evaluations. The first point may contain "
        "compilation."
    )
    return make_figure(chart, rows, name="throughput", title="Throughput", text=text, height=190)


def checkpoints(results: ResultSet, about: DataSet) -> Figure | None:
    """Returns the figure of the scores of all checkpoints."""
    rows = [
        {"run": run.name, "step": point.step, **interval_row(point.bits_per_byte)}
        for run in results.runs
        for curve in run.curves
        if curve.data.fingerprint == about.fingerprint
        for point in curve.points
    ]
    x = alt.X("step:Q", title="training steps", axis=axis(",d"), scale=alt.Scale(zero=False))
    text = f"Bits per byte of every checkpoint of a run, on {data_name(about)}. Bands are confidence intervals."
    return lines(results, rows, x, "bits per byte", name="checkpoints", title="All checkpoints", text=text)


def position(results: ResultSet, about: DataSet) -> Figure | None:
    """Returns the figure of loss by position in the document."""
    rows = [
        {"run": run.name, **row}
        for run, evaluated in results.evaluated(about)
        if evaluated.context is not None
        for row in bin_rows(evaluated.context.by_position)
    ]
    text = (
        f"Bits per token by position in the document, {data_name(about)}. Bins double in size; bands are confidence "
        "intervals. A line that still falls at some position suggests that the model uses context of that length. Bins "
        "of late positions contain only long documents."
    )
    x = log_positions("position in the document (tokens)")
    return lines(results, rows, x, "bits per token", name="position", title="Loss by position", text=text)


def improvement(results: ResultSet, about: DataSet) -> Figure | None:
    """Returns the figure of improvement over the baseline by position."""
    rows = [
        {"run": results.name_of(difference.subject), "baseline": results.name_of(comparison.baseline), **row}
        for comparison in results.comparisons
        if comparison.data.fingerprint == about.fingerprint
        for difference in comparison.differences
        for row in bin_rows(difference.by_position)
    ]
    text = (
        f"Bits per token saved over the baseline on the same tokens, by position in the document, {data_name(about)}. "
        "Above zero the model is better. Bands are confidence intervals."
    )
    baselines = dict.fromkeys(row["baseline"] for row in rows)
    if len(baselines) > 1:
        named = (f"{name} ({dash})" for name, dash in zip(baselines, itertools.cycle(DASHES), strict=False))
        text += f" Baselines: {', '.join(named)}."
    x = log_positions("position in the document (tokens)")
    about_figure = {"name": "improvement", "title": "Improvement by position", "text": text}
    return lines(results, rows, x, "bits per token saved", **about_figure, zero=True, dash="baseline")
