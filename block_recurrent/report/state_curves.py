"""Figures of recurrent states during training, from the runs' own lines: contribution, half-lives, use of the states.

The lines are those of state reports (group `states`), and the evaluations for the half-lives of fixed gates. Runs
without them are not in these figures.
"""

import re
from collections.abc import Iterator
from typing import Any

import altair as alt

from block_recurrent.evaluation.run_results import ResultSet
from block_recurrent.report.charts import (
    Figure,
    Rows,
    axis,
    chart_of,
    color_of_runs,
    interval_tooltip,
    make_figure,
    zero_rule,
)

_GROUP = "states"  # `evaluation.state_report.GROUP`; importing it would import JAX
_HALF_LIFE = re.compile(r"half_life_tokens/(?P<gate>[^/]+/[^/]+)/p(?P<percent>\d+)")
_COSTS = {"contribution_bits_per_byte": "contribution", "cost_bits_per_byte/reset": "reset at every segment"}
# Metric of a layer, its title, the title of the axis, the caption.
_LAYER_FIGURES = (
    (
        "states_share",
        "Share of the states in attention's output during training",
        "share",
        "Share of the states in what attention adds to the residual stream of the tokens, by training tokens, on a "
        "held-out document. 0: tokens ignore the states.",
    ),
    (
        "state_change",
        "Change of the states during training",
        "|change| / |states|",
        "Relative change of the states by each block, mean over a held-out document, by training tokens. Near 0 the "
        "states hardly change.",
    ),
)


def state_curves(results: ResultSet) -> list[Figure]:
    """Returns the figures of recurrent states during training that the runs have lines for."""
    drawn = [_contribution(results), _half_lives(results)]
    drawn += [_by_layer(results, *about) for about in _LAYER_FIGURES]
    return [figure for figure in drawn if figure is not None]


def dead_states(results: ResultSet) -> list[tuple[str, int]]:
    """Returns the runs whose last state report says that the state is dead: name and step."""
    last = {run.name: line for run in results.runs for line in run.metrics if line["group"] == _GROUP}
    return [(name, line["step"]) for name, line in last.items() if line.get("dead")]


def _contribution(results: ResultSet) -> Figure | None:
    rows: Rows = [
        {**where, "what": what, "value": line[name], "low": line[f"{name}/low"], "high": line[f"{name}/high"]}
        for line, where in _lines(results)
        if line["group"] == _GROUP
        for name, what in _COSTS.items()
        if name in line
    ]
    if not rows:
        return None
    base = chart_of(rows).encode(
        x=_tokens(),
        color=color_of_runs(results, rows),
        detail="what:N",
        tooltip=["run:N", "what:N", "step:Q", *interval_tooltip("bits per byte")],
    )
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q"), y2="high:Q")
    dashes = alt.StrokeDash("what:N", title=None, scale=alt.Scale(domain=list(_COSTS.values())))
    curves = _dotted_lines(base.encode(y=alt.Y("value:Q", title="bits per byte")), dashes)
    text = (
        "Contribution of the states to the prediction of held-out text, and the cost of a reset of the states at every "
        "segment, in bits per byte, by training tokens. Bands are confidence intervals over documents. Zero: the "
        "states do not matter."
    )
    title = "Contribution of the states during training"
    return make_figure(zero_rule() + band + curves, rows, name="learning_contribution", title=title, text=text)


def _half_lives(results: ResultSet) -> Figure | None:
    rows: Rows = [
        {**where, "gate": match["gate"].replace("/", ", "), "channels": f"{match['percent']} %", "value": value}
        for line, where in _lines(results)
        for name, value in line.items()
        if (match := _HALF_LIFE.fullmatch(name))
    ]
    if not rows:
        return None
    shares = sorted({row["channels"] for row in rows}, key=lambda share: -int(share.split()[0]))
    base = chart_of(rows).encode(
        x=_tokens(),
        y=alt.Y("value:Q", title="half-life (tokens)", scale=alt.Scale(type="log", nice=False), axis=axis(",d")),
        color=color_of_runs(results, rows),
        detail="gate:N",
        tooltip=["run:N", "gate:N", "channels:N", "step:Q", alt.Tooltip("value:Q", title="tokens", format=",.0f")],
    )
    chart = _dotted_lines(base, alt.StrokeDash("channels:N", title="channels below", sort=shares))
    text = (
        "Half-lives of the gates, by training tokens, on a logarithmic scale. One line for each share of the channels: "
        "these channels have a shorter half-life."
    )
    return make_figure(chart, rows, name="learning_half_lives", title="Half-lives during training", text=text)


def _by_layer(results: ResultSet, metric: str, title: str, unit: str, text: str) -> Figure | None:
    rows: Rows = [
        {**where, "layer": name.removeprefix(f"{metric}/").replace("_", " "), "value": value}
        for line, where in _lines(results)
        if line["group"] == _GROUP
        for name, value in line.items()
        if name.startswith(f"{metric}/")
    ]
    if not rows:
        return None
    base = chart_of(rows).encode(
        x=_tokens(),
        y=alt.Y("value:Q", title=unit),
        color=color_of_runs(results, rows),
        tooltip=["run:N", "layer:N", "step:Q", alt.Tooltip("value:Q", title=unit, format=".4f")],
    )
    chart = _dotted_lines(base, alt.StrokeDash("layer:N", title=None))
    return make_figure(chart, rows, name=f"learning_{metric}", title=title, text=text, height=190)


def _tokens() -> alt.X:
    return alt.X("trained:Q", title="training tokens", axis=axis("~s"))


def _dotted_lines(base: alt.Chart, dashes: alt.StrokeDash) -> Any:
    """Returns lines, and points that show a single report too; without dashes, so that the legend shows lines."""
    return base.mark_line().encode(strokeDash=dashes) + base.mark_point(filled=True, size=30, opacity=1)


def _lines(results: ResultSet) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yields each line of each run, with the first fields of its rows."""
    for run in results.runs:
        data = run.config.get("data")
        if data is None:
            continue  # an export, or the output folder of an evaluation
        segments = run.config.get("train", {}).get("backprop_segments", 1)  # absent from runs of 0.1.0
        tokens_per_step = data["batch_size"] * data["segment_length"] * segments  # padding included
        for line in run.metrics:
            yield line, {"run": run.name, "step": line["step"], "trained": line["step"] * tokens_per_step}
