"""Figures of recurrent states: ablations, gates, and the states along a document."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from block_recurrent.evaluation.records import DataSet
from block_recurrent.evaluation.results import StatePoint
from block_recurrent.evaluation.run_results import ResultSet
from block_recurrent.report.charts import (
    Figure,
    Rows,
    axis,
    bin_rows,
    chart_of,
    color_of_runs,
    data_name,
    interval_row,
    interval_tooltip,
    log_positions,
    make_figure,
    zero_rule,
)

_POINTS = 240  # at most, per line
_QUANTILES = 101


def ablations(results: ResultSet, about: DataSet) -> Figure | None:
    """Returns the figure of the costs of the state ablations."""
    rows = [
        {"run": run.name, "states": item.name.replace("_", " "), "meaning": item.meaning, **interval_row(item.cost)}
        for run, evaluated in results.evaluated(about)
        if evaluated.ablations is not None
        for item in evaluated.ablations.ablations[1:]
    ]
    if not rows:
        return None
    runs = len({row["run"] for row in rows})
    names = list(dict.fromkeys(row["states"] for row in rows))
    place = {
        "y": alt.Y("states:N", title=None, sort=names),
        "yOffset": alt.YOffset("run:N"),
        "color": color_of_runs(results, rows),
    }
    x = alt.X("value:Q", title="increase in bits per byte")
    tooltip = ["run:N", "states:N", "meaning:N", *interval_tooltip("cost")]
    base = chart_of(rows)
    whiskers = base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q", **place).transform_calculate(value="datum.low")
    points = base.mark_point(filled=True, size=80, opacity=1).encode(x=x, tooltip=tooltip, **place)
    chart = zero_rule(vertical=True) + whiskers + points
    text = (
        f"Increase in bits per byte on {data_name(about)} when the recurrent states are changed; the caches are always "
        "carried. Whiskers are confidence intervals. Zero: the states do not matter."
    )
    height = max(160, len(names) * (20 + 18 * runs))
    return make_figure(chart, rows, name="ablations", title="State ablations", text=text, height=height)


def distance(results: ResultSet, about: DataSet) -> Figure | None:
    """Returns the figure of loss by distance since the last reset of the states."""
    rows: Rows = []
    for run, evaluated in results.evaluated(about):
        for item in evaluated.ablations.ablations if evaluated.ablations else ():
            pairs = (("reset", item.by_distance), ("carried", item.carried_by_distance))
            rows += [{"run": run.name, "state": name, **row} for name, bins in pairs for row in bin_rows(bins)]
    if not rows:
        return None
    chart = chart_of(rows).mark_line().encode(
        x=log_positions("tokens since the last reset"),
        y=alt.Y("value:Q", title="bits per token", scale=alt.Scale(zero=False)),
        color=color_of_runs(results, rows),
        strokeDash=alt.StrokeDash("state:N", title=None, scale=alt.Scale(domain=["carried", "reset"])),
        tooltip=["run:N", "state:N", "tokens:N", *interval_tooltip("bits per token")],
    )  # fmt: skip
    text = (
        f"Bits per token of the same tokens, with carried states and with states that are reset at regular intervals, "
        f"by tokens since the last reset, {data_name(about)}. The gap is the benefit of the carried states; it closes "
        "as the states fill again."
    )
    return make_figure(chart, rows, name="distance", title="Loss since the last reset", text=text)


def half_lives(results: ResultSet, about: DataSet) -> Figure | None:
    """Returns the figure of the half-lives of the gates' channels."""
    rows: Rows = []
    for run, layer in _layers(results, about):
        for gate in (*layer.fixed_gates, *layer.lstm_gates):
            label = f"layer {layer.layer}, {gate.place} gate"
            for share, value in _quantiles(gate.half_life_tokens):
                rows.append({"run": run, "gate": label, "share": share, "value": value})
    if not rows:
        return None
    chart = chart_of(rows).mark_line().encode(
        x=alt.X("share:Q", title="share of channels with a shorter half-life", axis=axis("%")),
        y=alt.Y("value:Q", title="half-life (tokens)", scale=alt.Scale(type="log", nice=False), axis=axis(",d")),
        color=color_of_runs(results, rows),
        strokeDash=alt.StrokeDash("gate:N", title=None),
        tooltip=["run:N", "gate:N", alt.Tooltip("share:Q", format=".0%"), alt.Tooltip("value:Q", format=",.0f")],
    )  # fmt: skip
    text = (
        "Channels of the states in order of half-life, the number of tokens after which half of a channel's content is "
        "left. For LSTM gates, from the geometric mean of the forget gate."
    )
    return make_figure(chart, rows, name="half_lives", title="Half-lives of the gates", text=text)


def lstm_gates(results: ResultSet, about: DataSet) -> Figure | None:
    """Returns the figure of the channels' mean forget and input gates."""
    rows = [
        {"run": run, "gate": f"layer {layer.layer}, {gate.place} gate", "forget": f, "input": i}
        for run, layer in _layers(results, about)
        for gate in layer.lstm_gates
        for f, i in zip(gate.forget_mean, gate.input_mean, strict=True)
    ]
    if not rows:
        return None
    chart = chart_of(rows).mark_point(size=30).encode(
        x=alt.X("forget:Q", title="mean forget gate", scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("input:Q", title="mean input gate", scale=alt.Scale(domain=[0, 1])),
        color=color_of_runs(results, rows),
        shape=alt.Shape("gate:N", title=None),
        tooltip=["run:N", "gate:N", alt.Tooltip("forget:Q", format=".3f"), alt.Tooltip("input:Q", format=".3f")],
    )  # fmt: skip
    text = "Mean input gate and mean forget gate of each channel, over blocks and state vectors."
    return make_figure(chart, rows, name="lstm_gates", title="LSTM gates", text=text)


# Field of `results.StatePoint`, title, axis, and caption.
_STATE_FIGURES: tuple[tuple[str, str, str, str], ...] = (
    ("norm", "Norm of the states", "mean norm", "Mean norm of the state vectors before each block."),
    (
        "change",
        "Change",
        "|change| / |states|",
        "Relative change of the states by each block. Near 0 the states hardly change.",
    ),
    (
        "similarity_to_initial",
        "Similarity to the initial states",
        "cosine",
        "Cosine similarity to the trained initial states. 1: the states have not changed.",
    ),
    (
        "similarity_to_previous",
        "Similarity to 1,000 tokens before",
        "cosine",
        "Cosine similarity to the states 1,000 tokens before; shows how fast the states drift.",
    ),
    (
        "states_share",
        "Share of the states in attention's output",
        "share",
        "Share of the states in what attention adds to the residual stream of the tokens. 0: tokens ignore the states.",
    ),
    (
        "states_read",
        "States that a token attends to",
        "effective number",
        "Effective number of states that a token attends to; all states for uniform attention.",
    ),
    (
        "mass_on_previous_block",
        "States' attention to the previous block",
        "share of attention",
        "Share of the states' attention to tokens that is on the previous block.",
    ),
)


def states(results: ResultSet, about: DataSet) -> list[Figure]:
    """Returns one small figure per field of `StatePoint`, along the longest document."""
    figures = []
    for field, title, unit, text in _STATE_FIGURES:
        rows = [
            {"run": run, "layer": f"layer {layer.layer}", "position": point.position, "value": getattr(point, field)}
            for run, layer in _layers(results, about)
            for point in _thinned(layer.states)
            if getattr(point, field) is not None
        ]
        if not rows:
            continue
        chart = chart_of(rows).mark_line(strokeWidth=1.5).encode(
            x=alt.X("position:Q", title="position in the document (tokens)", axis=axis("~s", 6)),
            y=alt.Y("value:Q", title=unit, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)),
            color=color_of_runs(results, rows),
            strokeDash=alt.StrokeDash("layer:N", title=None, legend=None),
            tooltip=["run:N", "layer:N", "position:Q", alt.Tooltip("value:Q", format=".4f")],
        )  # fmt: skip
        figures.append(make_figure(chart, rows, name=f"states_{field}", title=title, text=text, height=190))
    return figures


def _layers(results: ResultSet, about: DataSet) -> list[tuple[str, Any]]:
    """Returns the diagnostics of recurrent layers, with the run's name."""
    return [
        (run.name, layer)
        for run, evaluated in results.evaluated(about)
        if evaluated.diagnostics is not None
        for layer in evaluated.diagnostics.layers
    ]


def _quantiles(values: Sequence[float]) -> list[tuple[float, float]]:
    ordered = sorted(values)
    count = min(_QUANTILES, len(ordered))
    picked = [round(k * (len(ordered) - 1) / max(1, count - 1)) for k in range(count)]
    return [(k / max(1, len(ordered) - 1), ordered[k]) for k in picked]


def _thinned(points: Sequence[StatePoint]) -> Sequence[StatePoint]:
    return points[:: max(1, math.ceil(len(points) / _POINTS))]
