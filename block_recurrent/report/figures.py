"""The report's figures as Vega-Lite specifications: the page draws them, `pictures.py` makes files of them.

Every specification has a parameter `runs`, the names of the runs that are shown, which the page's controls set.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from block_recurrent.analysis.records import DataSet, Estimate
from block_recurrent.analysis.results import Bin, StatePoint
from block_recurrent.report.gather import Gathered

HEIGHT = 280
_POINTS = 240  # of a line through a document
_QUANTILES = 101

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure.

    Attributes:
        name: of its files, without ending; also its anchor on the page.
        title: short.
        text: what is to be seen, for people who do not see it, and what the axes mean.
        spec: Vega-Lite, without colours or fonts.
    """

    name: str
    title: str
    text: str
    spec: dict[str, Any]


def learning(gathered: Gathered) -> Figure | None:
    """Training and validation loss as the runs logged them."""
    rows: Rows = []
    for run in gathered.runs:
        for line in run.metrics:
            if line.get("bits_per_byte") is not None and line["group"] != "speed":
                kind = "training" if line["group"] == "train" else line["group"]
                rows.append({"run": run.name, "step": line["step"], "what": kind, "bits": line["bits_per_byte"]})
    if not rows:
        return None
    base = _chart(rows).encode(
        x=alt.X("step:Q", title="training steps", axis=alt.Axis(format="~s")),
        y=alt.Y("bits:Q", title="bits per byte", scale=alt.Scale(type="log", zero=False, nice=False)),
        color=_color(gathered),
        tooltip=["run:N", "what:N", "step:Q", alt.Tooltip("bits:Q", title="bits per byte", format=".4f")],
    )
    training = base.transform_filter("datum.what == 'training'").mark_line(strokeWidth=1, opacity=0.6)
    evaluated = base.transform_filter("datum.what != 'training'")
    chart = training + evaluated.mark_line(strokeWidth=2) + evaluated.mark_point(filled=True, size=70, opacity=1)
    text = (
        "Bits per byte against training steps, on a logarithmic scale. Thin lines: training batches, as logged; thick "
        "lines with dots: evaluation during training."
    )
    return _figure("learning", "Learning curves", text, chart, gathered)


def checkpoints(gathered: Gathered, about: DataSet) -> Figure | None:
    """Scores of all checkpoints of a run."""
    rows = [
        {"run": run.name, "step": point.step, **_interval(point.bits_per_byte)}
        for run in gathered.runs
        for curve in run.curves
        if curve.data.fingerprint == about.fingerprint
        for point in curve.points
    ]
    x = alt.X("step:Q", title="training steps", axis=alt.Axis(format="~s"), scale=alt.Scale(zero=False))
    return _lines(
        rows, x, "bits per byte", "checkpoints", "All checkpoints",
        f"Bits per byte of every checkpoint that a run has kept, on {_named(about)}, with intervals.", gathered,
    )  # fmt: skip


def position(gathered: Gathered, about: DataSet) -> Figure | None:
    """Loss by position."""
    rows = [
        {"run": run.name, **row}
        for run, evaluated in gathered.evaluated(about)
        if evaluated.context is not None
        for row in _bins(evaluated.context.by_position)
    ]
    text = (
        f"Bits per token against the token's position in its document, {_named(about)}; positions in bins that double, "
        "bands are intervals. Where the line still falls, the model makes use of what lies that far back; documents of "
        "different lengths take part in different bins."
    )
    return _lines(
        rows, _distance("position in the document (tokens)"), "bits per token", "position", "Loss by position", text,
        gathered,
    )  # fmt: skip


def improvement(gathered: Gathered, about: DataSet) -> Figure | None:
    """What models save over the baseline, by position."""
    rows = [
        {"run": gathered.name_of(difference.subject), **row}
        for comparison in gathered.comparisons
        if comparison.data.fingerprint == about.fingerprint
        for difference in comparison.differences
        for row in _bins(difference.by_position)
    ]
    text = (
        f"Bits per token that a model saves over the baseline on the same tokens, against position, {_named(about)}. "
        "Above zero the model is better; bands are intervals."
    )
    return _lines(
        rows, _distance("position in the document (tokens)"), "bits per token saved", "improvement",
        "Improvement by position", text, gathered, zero=True,
    )  # fmt: skip


def ablations(gathered: Gathered, about: DataSet) -> Figure | None:
    """What it costs to tamper with the states."""
    rows = [
        {"run": run.name, "states": item.name.replace("_", " "), "meaning": item.meaning, **_interval(item.cost)}
        for run, evaluated in gathered.evaluated(about)
        if evaluated.ablations is not None
        for item in evaluated.ablations.ablations[1:]
    ]
    if not rows:
        return None
    runs = len({row["run"] for row in rows})
    names = list(dict.fromkeys(row["states"] for row in rows))
    place = {"y": alt.Y("states:N", title=None, sort=names), "yOffset": alt.YOffset("run:N"), "color": _color(gathered)}
    x = alt.X("value:Q", title="bits per byte more than with the state carried")
    tooltip = ["run:N", "states:N", "meaning:N", *_interval_tooltip("cost")]
    base = _chart(rows)
    whiskers = base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q", **place).transform_calculate(value="datum.low")
    points = base.mark_point(filled=True, size=80, opacity=1).encode(x=x, tooltip=tooltip, **place)
    chart = _zero(vertical=True) + whiskers + points
    text = (
        f"Bits per byte that a model loses on {_named(about)} when its recurrent states are tampered with, its caches "
        "left alone; whiskers are intervals. Zero: the state did not matter."
    )
    height = max(160, len(names) * (20 + 18 * runs))
    return _figure("ablations", "State ablations", text, chart, gathered, height=height)


def distance(gathered: Gathered, about: DataSet) -> Figure | None:
    """Loss by distance since the last reset of the states."""
    rows: Rows = []
    for run, evaluated in gathered.evaluated(about):
        for item in evaluated.ablations.ablations if evaluated.ablations else ():
            pairs = (("reset", item.by_distance), ("carried", item.carried_by_distance))
            rows += [{"run": run.name, "state": name, **row} for name, bins in pairs for row in _bins(bins)]
    if not rows:
        return None
    chart = _chart(rows).mark_line(point=True).encode(
        x=_distance("tokens since the state started anew"),
        y=alt.Y("value:Q", title="bits per token", scale=alt.Scale(zero=False)),
        color=_color(gathered),
        strokeDash=alt.StrokeDash("state:N", title=None, scale=alt.Scale(domain=["carried", "reset"])),
        tooltip=["run:N", "state:N", "tokens:N", *_interval_tooltip("bits per token")],
    )  # fmt: skip
    text = (
        f"Bits per token of the same tokens with the state carried and with the state reset at regular places, against "
        f"the tokens since the last reset, {_named(about)}. The gap is what the state brings; it closes as the new "
        "state fills."
    )
    return _figure("distance", "Loss since the start of the state", text, chart, gathered)


def half_lives(gathered: Gathered, about: DataSet) -> Figure | None:
    """How long the channels of gates remember."""
    rows: Rows = []
    for run, layer in _layers(gathered, about):
        for gate in (*layer.fixed_gates, *layer.lstm_gates):
            label = f"layer {layer.layer}, {gate.place} gate"
            for share, value in _quantiles(gate.half_life_tokens):
                rows.append({"run": run, "gate": label, "share": share, "value": value})
    if not rows:
        return None
    chart = _chart(rows).mark_line().encode(
        x=alt.X("share:Q", title="share of channels with a shorter half-life", axis=alt.Axis(format="%")),
        y=alt.Y("value:Q", title="half-life (tokens)", scale=alt.Scale(type="log"), axis=alt.Axis(format="~s")),
        color=_color(gathered),
        strokeDash=alt.StrokeDash("gate:N", title=None),
        tooltip=["run:N", "gate:N", alt.Tooltip("share:Q", format=".0%"), alt.Tooltip("value:Q", format=",.0f")],
    )  # fmt: skip
    text = (
        "Channels of the states ordered by half-life: the tokens after which the gate has left half of a channel's "
        "content. For lstm gates, by the geometric mean of the forget gate."
    )
    return _figure("half_lives", "Half-lives of the gates", text, chart, gathered)


def lstm_gates(gathered: Gathered, about: DataSet) -> Figure | None:
    """Mean forget and input gates of the channels."""
    rows = [
        {"run": run, "gate": f"layer {layer.layer}, {gate.place} gate", "forget": f, "input": i}
        for run, layer in _layers(gathered, about)
        for gate in layer.lstm_gates
        for f, i in zip(gate.forget_mean, gate.input_mean, strict=True)
    ]
    if not rows:
        return None
    chart = _chart(rows).mark_point(size=30).encode(
        x=alt.X("forget:Q", title="mean forget gate", scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("input:Q", title="mean input gate", scale=alt.Scale(domain=[0, 1])),
        color=_color(gathered),
        shape=alt.Shape("gate:N", title=None),
        tooltip=["run:N", "gate:N", alt.Tooltip("forget:Q", format=".3f"), alt.Tooltip("input:Q", format=".3f")],
    )  # fmt: skip
    text = "Each channel's mean input gate against its mean forget gate, over blocks and state vectors."
    return _figure("lstm_gates", "lstm gates", text, chart, gathered)


_STATE_FIGURES: tuple[tuple[str, str, str], ...] = (
    ("norm", "Length of the state vectors", "mean length"),
    ("change", "Change a block", "|change| / |state|"),
    ("similarity_to_initial", "Likeness to the initial states", "cosine"),
    ("similarity_to_previous", "Likeness to 1,000 tokens before", "cosine"),
    ("states_share", "Share of attention's output from states", "share"),
    ("states_read", "States that a token reads", "effective number"),
    ("mass_on_previous_block", "States' attention to the block before", "share of attention"),
)


def states(gathered: Gathered, about: DataSet) -> list[Figure]:
    """The states through the longest document, one small figure for each number."""
    figures = []
    for field, title, unit in _STATE_FIGURES:
        rows = [
            {"run": run, "layer": f"layer {layer.layer}", "position": point.position, "value": getattr(point, field)}
            for run, layer in _layers(gathered, about)
            for point in _thinned(layer.states)
            if getattr(point, field) is not None
        ]
        if not rows:
            continue
        chart = _chart(rows).mark_line(strokeWidth=1.5).encode(
            x=alt.X("position:Q", title="position in the document (tokens)", axis=alt.Axis(format="~s")),
            y=alt.Y("value:Q", title=unit, scale=alt.Scale(zero=False)),
            color=_color(gathered),
            strokeDash=alt.StrokeDash("layer:N", title=None, legend=None),
            tooltip=["run:N", "layer:N", "position:Q", alt.Tooltip("value:Q", format=".4f")],
        )  # fmt: skip
        text = f"{title} ({unit}) against the position in the longest document of {_named(about)}."
        figures.append(_figure(f"states_{field}", title, text, chart, gathered, height=190))
    return figures


def _lines(
    rows: Rows, x: Any, y: str, name: str, title: str, text: str, gathered: Gathered, *, zero: bool = False
) -> Figure | None:
    """Lines with bands of intervals."""
    if not rows:
        return None
    color = _color(gathered)
    base = _chart(rows).encode(x=x)
    where = ["tokens:N"] if "tokens" in rows[0] else ["step:Q"]
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q"), y2="high:Q", color=color)
    line = base.mark_line(point=True).encode(
        y=alt.Y("value:Q", title=y, scale=alt.Scale(zero=False)),
        color=color,
        tooltip=["run:N", *where, *_interval_tooltip(y)],
    )
    return _figure(name, title, text, (_zero() + band + line) if zero else band + line, gathered)


def _chart(rows: Rows) -> alt.Chart:
    return alt.Chart(alt.Data(values=rows)).transform_filter("indexof(runs, datum.run) >= 0")


def _zero(*, vertical: bool = False) -> alt.Chart:
    rule = alt.Chart(alt.Data(values=[{}])).mark_rule(strokeDash=[4, 4])
    return rule.encode(x=alt.datum(0)) if vertical else rule.encode(y=alt.datum(0))


def _figure(name: str, title: str, text: str, chart: Any, gathered: Gathered, *, height: int = HEIGHT) -> Figure:
    names = run_names(gathered)
    spec = chart.add_params(alt.param(name="runs", value=names)).properties(
        width="container", height=height, description=text
    )
    content = spec.to_dict()
    content.pop("config", None)  # the theme's
    return Figure(name=name, title=title, text=text, spec=content)


def run_names(gathered: Gathered) -> list[str]:
    """All names that figures colour: of runs, and of compared models that are not among them."""
    compared = [gathered.name_of(item.subject) for c in gathered.comparisons for item in c.differences]
    return list(dict.fromkeys([*(run.name for run in gathered.runs), *compared]))


def _color(gathered: Gathered) -> alt.Color:
    return alt.Color("run:N", title=None, scale=alt.Scale(domain=run_names(gathered)))


def _distance(title: str) -> alt.X:
    return alt.X("middle:Q", title=title, scale=alt.Scale(type="log", base=2), axis=alt.Axis(format="~s", tickCount=8))


def _bins(bins: Iterable[Bin]) -> Rows:
    return [
        {
            "middle": math.sqrt(item.low * max(item.low, item.high - 1)),
            "tokens": f"{item.low:,} to {item.high - 1:,}",
            **_interval(item.bits_per_token),
        }
        for item in bins
    ]


def _interval(estimate: Estimate) -> dict[str, float]:
    low = estimate.value if estimate.low is None else estimate.low
    high = estimate.value if estimate.high is None else estimate.high
    return {"value": estimate.value, "low": low, "high": high}


def _interval_tooltip(title: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("value:Q", title=title, format=".4f"),
        alt.Tooltip("low:Q", title="from", format=".4f"),
        alt.Tooltip("high:Q", title="to", format=".4f"),
    ]


def _layers(gathered: Gathered, about: DataSet) -> list[tuple[str, Any]]:
    """Diagnostics of recurrent layers, with the run's name."""
    return [
        (run.name, layer)
        for run, evaluated in gathered.evaluated(about)
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


def _named(about: DataSet) -> str:
    return f"{about.label}, {about.split}"
