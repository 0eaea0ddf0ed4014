"""The figures of experiments/laptop/README.md."""

import altair as alt

from block_recurrent.report.figures import Figure
from experiments.laptop.claims import Results
from experiments.laptop.table import LAPTOP

_ORDER = [row.name for row in LAPTOP.rows]
_FIRST_TOKENS = 9_000_000  # earlier losses are so large that the differences between rows would not be seen


def bits_by_step_time(results: Results, seconds: dict[str, float]) -> Figure:
    """Draws the test loss against the step time, one point per run."""
    points = [
        {"row": name, "milliseconds": seconds[name] * 1e3, "bits": result["evaluation"]["bits_per_byte"]["value"]}
        for name, seeds in results.items()
        for result in seeds
        if name in seconds
    ]
    chart = (
        alt.Chart(alt.Data(values=points))
        .mark_point(filled=True, size=90, opacity=0.9)
        .encode(
            x=alt.X("milliseconds:Q", title="step time, milliseconds", scale=alt.Scale(zero=False)),
            y=alt.Y("bits:Q", title="bits per byte, test split", scale=alt.Scale(zero=False)),
            color=alt.Color("row:N", title=None, sort=_ORDER),
        )
        .properties(height=320)
    )
    text = "Bits per byte on the test split against step time, one point per run."
    return Figure(name="bits_by_step_time", title="Laptop reproduction", text=text, runs=(), spec=chart.to_dict())


def learning_curves(results: Results) -> Figure:
    """Draws the validation loss of every run against the tokens trained."""
    points = [
        {"row": name, "seed": result["seed"], "tokens": line["tokens_trained"] / 1e6, "bits": line["bits_per_byte"]}
        for name, seeds in results.items()
        for result in seeds
        for line in result["learning_curve"]
        if line["tokens_trained"] >= _FIRST_TOKENS
    ]
    chart = (
        alt.Chart(alt.Data(values=points))
        .mark_line(opacity=0.8)
        .encode(
            x=alt.X("tokens:Q", title="tokens trained, millions", scale=alt.Scale(zero=False)),
            y=alt.Y("bits:Q", title="bits per byte, part of the validation split", scale=alt.Scale(zero=False)),
            color=alt.Color("row:N", title=None, sort=_ORDER),
            detail="seed:N",
        )
        .properties(height=320)
    )
    text = "Bits per byte on a part of the validation split against the tokens trained, one line per run."
    return Figure(name="learning_curves", title="Laptop reproduction", text=text, runs=(), spec=chart.to_dict())
