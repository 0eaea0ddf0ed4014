"""The report page: renders results and figures to one HTML file, and writes the figures as PNG and SVG."""

import dataclasses
import datetime
import functools
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import jinja2
from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.evaluation.records import Result
from block_recurrent.evaluation.run_results import ResultSet, SplitResults
from block_recurrent.files import write_whole
from block_recurrent.progress import ProgressCallback
from block_recurrent.report import figures, formats, state_figures
from block_recurrent.report.charts import Figure, run_names
from block_recurrent.report.configs import settings
from block_recurrent.report.explanations import explanations
from block_recurrent.report.model_facts import model_facts
from block_recurrent.report.paper import tables_with_runs
from block_recurrent.report.passages import stretches
from block_recurrent.report.pictures import embedding_script, write_pictures
from block_recurrent.report.score_table import score_columns
from block_recurrent.report.state_curves import dead_states, state_curves
from block_recurrent.report.theme import DARK, LIGHT, PALETTE

_VERDICTS = {
    "contributes": "state contributes",
    "negligible": "negligible",
    "nothing": "no contribution",
    "no recurrence": "no recurrence",
    "unknown": "no interval",
}
_REACHES = {"never": "first occurrence", "inside": "within the window", "beyond": "beyond the window"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageFigures:
    """All figures by section; those of a split by the fingerprint of its data."""

    learning: tuple[Figure, ...]
    context: dict[str, tuple[Figure, ...]]
    ablations: dict[str, tuple[Figure, ...]]
    gates: dict[str, tuple[Figure, ...]]
    states: dict[str, tuple[Figure, ...]]

    def __iter__(self) -> Iterator[Figure]:
        yield from self.learning
        for place in (self.context, self.ablations, self.gates, self.states):
            for drawn in place.values():
                yield from drawn


def write_report(
    results: ResultSet, path: epath.Path, *, progress: ProgressCallback = lambda done, total: None
) -> epath.Path:
    """Writes the page, and its figures as PNG and SVG to a folder next to it.

    Args:
        results: results to show.
        path: path of the page; must end in `.html`.
        progress: called with the figures done and all figures.

    Returns:
        The folder of the figures, `NAME_figures` for `NAME.html`.

    Raises:
        InputError: the path does not end in `.html`.
    """
    if path.suffix != ".html":
        raise InputError(f"--out {path}: must end in .html")
    pictures = path.with_name(f"{path.stem}_figures")
    drawn = draw(results)
    page = render(results, drawn, pictures=pictures.name)
    pictures.mkdir(parents=True, exist_ok=True)
    everything = list(drawn)
    for done, figure in enumerate(everything, 1):
        write_pictures(figure, pictures)
        progress(done, len(everything))
    write_whole(path, page)
    return pictures


def draw(results: ResultSet) -> PageFigures:
    """Returns all figures that the results have data for."""
    named = {about.fingerprint: about for about in results.data}
    several = len(named) > 1

    def each(*makers: Callable[..., Any]) -> dict[str, tuple[Figure, ...]]:
        placed = {}
        for number, (key, about) in enumerate(named.items(), 1):
            created = [maker(results, about) for maker in makers]
            flat = [figure for found in created for figure in (found if isinstance(found, list) else [found]) if figure]
            placed[key] = tuple(dataclasses.replace(f, name=f"{f.name}_{number}") if several else f for f in flat)
        return placed

    curves = [figures.learning(results), *state_curves(results), figures.throughput(results)]
    return PageFigures(
        learning=tuple(figure for figure in curves if figure is not None),
        context=each(figures.position, figures.improvement, figures.checkpoints),
        ablations=each(state_figures.ablations, state_figures.distance),
        gates=each(state_figures.half_lives, state_figures.lstm_gates),
        states=each(state_figures.states),
    )


def render(results: ResultSet, drawn: PageFigures, *, pictures: str) -> str:
    """Returns the page as HTML.

    Args:
        results: results to show.
        drawn: figures of the results.
        pictures: name of the folder of the figures' files, next to the page.
    """
    environment = _environment()
    names = run_names(results)
    levels = {f"{e.scores.bootstrap.level:.0%}" for run in results.runs for e in run.evaluations}
    source = functools.partial(_template_text, environment)
    return environment.get_template("page.html").render(
        title=" · ".join(names) or "Report",
        results=results,
        drawn=drawn,
        dead=dead_states(results),
        names=names,
        paper=tables_with_runs(results),
        score_columns=score_columns,
        model_facts=model_facts,
        explanations=functools.partial(explanations, results),
        settings=settings(results.runs),
        sections=list(_sections(results, drawn)),
        level=" or ".join(sorted(levels)),
        colours={name: PALETTE[k % len(PALETTE)] for k, name in enumerate(names)},
        verdicts=_VERDICTS,
        reaches=_REACHES,
        pictures=pictures,
        specs={figure.name: {"runs": figure.runs, "spec": figure.spec} for figure in drawn},
        themes={"light": LIGHT, "dark": DARK},
        style=source("page.css"),
        script=source("page.js"),
        vega=embedding_script(),
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=formats.command(sys.argv),
        version=metadata.version("block-recurrent"),
    )


def _sections(results: ResultSet, drawn: PageFigures) -> Iterator[tuple[str, str]]:
    """Yields anchor and title of each section with content; the anchor is also the name of the template."""
    evaluated = any(run.evaluations for run in results.runs)
    yield "summary", "Summary"
    if evaluated:
        yield "scores", "Scores"
    if drawn.learning:
        yield "learning", "Learning"
    if any(run.samples for run in results.runs):
        yield "samples", "Samples"
    if any(drawn.context.values()):
        yield "context", "Context"
    if any(e.ablations for run in results.runs for e in run.evaluations):
        yield "states", "Ablations"
    if any(drawn.gates.values()) or any(drawn.states.values()):
        yield "gates", "Gates and states"
    if results.comparisons:
        yield "words", "Words"
    if evaluated:
        yield "paper", "Paper"
    if results.runs:
        yield "configs", "Settings"
    yield "provenance", "Provenance"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("block_recurrent", "report/templates"),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": formats.number,
        "perplexity": formats.perplexity,
        "signed": formats.signed,
        "interval": formats.interval,
        "p_value_with_reach": formats.p_value_with_reach,
        "marked_code": formats.marked_code,
        "command": formats.command,
        "stretches": stretches,
        "result_files": _result_files,
    }
    return environment


def _template_text(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _result_files(evaluated: SplitResults) -> list[Result]:
    """Returns the results that exist for a model on a split."""
    found = (getattr(evaluated, field.name) for field in dataclasses.fields(evaluated))
    return [result for result in found if result is not None]
