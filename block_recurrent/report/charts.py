"""Parts of all figures: charts, axes, colours, and the `Figure` record."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import altair as alt

from block_recurrent.evaluation.records import DataSet, Estimate
from block_recurrent.evaluation.results import Bin
from block_recurrent.evaluation.run_results import ResultSet
from block_recurrent.report.theme import PALETTE

HEIGHT = 280
# Dashes of lines by their names in captions: lengths of the strokes and gaps in pixels.
DASHES = {"solid": [1, 0], "dashed": [6, 4], "dotted": [1, 3], "long dashes": [14, 4]}

# One dictionary per mark; each has the key `run`.
Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of the report.

    Attributes:
        name: name of its files, without the suffix.
        title: short title.
        text: caption, also the description for screen readers: the content and the meaning of the axes.
        runs: names of the runs in the figure.
        spec: Vega-Lite specification, without the theme's colours and fonts.
    """

    name: str
    title: str
    text: str
    runs: tuple[str, ...]
    spec: dict[str, Any]


def lines(
    results: ResultSet,
    rows: Rows,
    x: alt.X,
    y: str,
    *,
    name: str,
    title: str,
    text: str,
    zero: bool = False,
    dash: str | None = None,
) -> Figure | None:
    """Returns a figure of lines with bands for the intervals; None without rows.

    Args:
        results: determine the colours of the runs.
        rows: each with `interval_row`, the field of `x`, and `tokens` or `step` for the tooltip.
        x: horizontal axis.
        y: title of the vertical axis.
        name: as in `Figure`.
        title: as in `Figure`.
        text: as in `Figure`.
        zero: True to draw a line at 0.
        dash: field that tells lines of one run apart, by the dashes of `DASHES` in the order of its values; None for
            one line per run.
    """
    if not rows:
        return None
    color = color_of_runs(results, rows)
    base = chart_of(rows).encode(x=x) if dash is None else chart_of(rows).encode(x=x, detail=f"{dash}:N")
    where = ["tokens:N"] if "tokens" in rows[0] else ["step:Q"]
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q"), y2="high:Q", color=color)
    line = base.mark_line(point=True).encode(
        y=alt.Y("value:Q", title=y, scale=alt.Scale(zero=False)),
        color=color,
        tooltip=["run:N", *where, *interval_tooltip(y)],
    )
    if dash is not None:
        domain = list(dict.fromkeys(row[dash] for row in rows))
        scale = alt.Scale(domain=domain, range=list(DASHES.values())[: len(domain)])
        line = line.encode(strokeDash=alt.StrokeDash(f"{dash}:N", scale=scale, legend=None))
    chart = (zero_rule() + band + line) if zero else band + line
    return make_figure(chart, rows, name=name, title=title, text=text)


def chart_of(rows: Rows) -> alt.Chart:
    """Returns a chart of the rows of the selected runs."""
    return alt.Chart(alt.Data(values=rows)).transform_filter("indexof(runs, datum.run) >= 0")


def zero_rule(*, vertical: bool = False) -> alt.Chart:
    """Returns a dashed line at 0."""
    rule = alt.Chart(alt.Data(values=[{}])).mark_rule(strokeDash=[4, 4])
    return rule.encode(x=alt.datum(0)) if vertical else rule.encode(y=alt.datum(0))


def make_figure(chart: Any, rows: Rows, *, name: str, title: str, text: str, height: int = HEIGHT) -> Figure:
    """Returns a figure of a chart with the width of its container; `height` is in pixels, without axes."""
    names = _shown(rows)
    spec = chart.add_params(alt.param(name="runs", value=names)).properties(
        width="container", height=height, description=text
    )
    content = spec.to_dict()
    content.pop("config", None)  # the theme provides it
    return Figure(name=name, title=title, text=text, runs=tuple(names), spec=content)


def run_names(results: ResultSet) -> list[str]:
    """Returns the names that have a colour: all runs, and compared models that are not among the runs."""
    compared = [results.name_of(item.subject) for c in results.comparisons for item in c.differences]
    return list(dict.fromkeys([*(run.name for run in results.runs), *compared]))


def color_of_runs(results: ResultSet, rows: Rows) -> alt.Color:
    """Returns the colours of the runs, the same in all figures; the legend lists the runs of this figure."""
    palette = {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(run_names(results))}
    shown = _shown(rows)
    scale = alt.Scale(domain=shown, range=[palette[name] for name in shown])
    return alt.Color("run:N", title=None, scale=scale, legend=alt.Legend(symbolOpacity=1))


def axis(number_format: str, ticks: int = 8) -> alt.Axis:
    """Returns an axis with about `ticks` ticks and numbers in a d3 format."""
    return alt.Axis(format=number_format, tickCount=ticks)


def log_positions(title: str) -> alt.X:
    """Returns the horizontal axis for `bin_rows`."""
    return alt.X("middle:Q", title=title, scale=alt.Scale(type="log", base=2), axis=axis(",d"))


def bin_rows(bins: Iterable[Bin]) -> Rows:
    """Returns one row per bin, at its geometric middle."""
    return [
        {
            "middle": math.sqrt(item.low * max(item.low, item.high - 1)),
            "tokens": f"{item.low:,} to {item.high - 1:,}",
            **interval_row(item.bits_per_token),
        }
        for item in bins
    ]


def interval_row(estimate: Estimate) -> dict[str, float | None]:
    """Returns `value`, `low` and `high`; where the interval is missing, bands and whiskers have a gap."""
    return dataclasses.asdict(estimate)


def interval_tooltip(title: str) -> list[alt.Tooltip]:
    """Returns the tooltip of an `interval_row`."""
    return [
        alt.Tooltip("value:Q", title=title, format=".4f"),
        alt.Tooltip("low:Q", title="from", format=".4f"),
        alt.Tooltip("high:Q", title="to", format=".4f"),
    ]


def data_name(about: DataSet) -> str:
    """Returns the name of a split for captions."""
    return f"{about.label}, {about.split}"


def _shown(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["run"] for row in rows))
