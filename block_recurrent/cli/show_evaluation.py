"""Output of `evaluate` and `compare` on the terminal."""

import numpy as np
from rich.console import Console

from block_recurrent.cli.console import line, table
from block_recurrent.evaluation.bootstrap import smallest_p_value
from block_recurrent.evaluation.comparison_results import Comparison, Difference
from block_recurrent.evaluation.records import DataSet, Estimate, Subject
from block_recurrent.evaluation.results import Ablations, Curve, Diagnostics, OfficialScores, Scores
from block_recurrent.evaluation.run_results import ResultSet
from block_recurrent.report.formats import interval, p_value, perplexity


def show_scores(console: Console, scores: Scores) -> None:
    """Prints the scores of a split with their intervals."""
    level = f"{scores.bootstrap.level:.0%} interval"
    rows = [
        ("bits per token", *_cells(scores.bits_per_token)),
        ("bits per byte", *_cells(scores.bits_per_byte)),
        ("bits per character", *_cells(scores.bits_per_character)),
        ("perplexity per token", *_perplexity(scores.token_perplexity)),
        (f"perplexity per word ({scores.words_source} count)", *_perplexity(scores.word_perplexity)),
    ]
    table(console, ("metric", "value", level), rows, f"{_title(scores.subject, scores.data)}, {scores.data.scope}")
    line(
        console,
        f"{scores.nats:,.1f} nats; {scores.documents:,} documents; scored {scores.tokens:,} tokens, "
        f"{scores.bytes:,} bytes, {scores.characters:,.0f} characters; {scores.words:,} words",
    )


def show_official(console: Console, scores: OfficialScores) -> None:
    """Prints the scores of the official code's protocol, labelled as not exact."""
    line(
        console,
        f"official code's protocol, not exact ({scores.rows} rows x {scores.segments} segments of "
        f"{scores.segment_length}, last target of a segment and id 0 masked; {scores.passes:.2f} passes): "
        f"{scores.bits_per_token:.4f} bits per token, perplexity {scores.token_perplexity:.3f} per token, "
        f"{scores.tokens:,} tokens",
    )


def show_ablations(console: Console, study: Ablations) -> None:
    """Prints the cost of each state ablation, and the summary."""
    rows = [
        (item.name, f"{item.bits_per_byte.value:.4f}", *_cells(item.cost, sign="+"), item.meaning)
        for item in study.ablations
    ]
    table(console, ("states", "bits per byte", "cost", f"{study.bootstrap.level:.0%} interval", ""), rows)
    for name, reason in study.skipped.items():
        line(console, f"{name}: skipped ({reason})")
    warning = "warning: " if study.contribution.verdict in ("nothing", "negligible") else ""
    line(console, warning + study.contribution.text)


def show_curve(console: Console, curve: Curve) -> None:
    """Prints one line per checkpoint."""
    rows = [
        (
            f"{point.step:,}",
            *_cells(point.bits_per_byte),
            f"{point.bits_per_token.value:.4f}",
            perplexity(point.token_perplexity.value),
            perplexity(point.word_perplexity.value),
        )
        for point in curve.points
    ]
    columns = ("step", "bits per byte", "interval", "bits per token", "perplexity per token", "perplexity per word")
    table(console, columns, rows, f"{curve.subject.name} on {curve.data.label}, whole split {curve.data.split}")


def show_diagnostics(console: Console, study: Diagnostics) -> None:
    """Prints the half-lives of the gates, and the states at positions of doubling distance."""
    line(console, f"gates and states, {study.tokens:,} tokens of {study.document}")
    if not study.layers:
        line(console, "no diagnostics: the model has no recurrent layers, or the document is shorter than a block")
    for layer in study.layers:
        for gate in (*layer.fixed_gates, *layer.lstm_gates):
            low, middle, high = np.percentile(gate.half_life_tokens, [5, 50, 95])
            line(
                console,
                f"layer {layer.layer}, {gate.place} gate: half-life {middle:,.0f} tokens (median channel; "
                f"5 % below {low:,.0f}, 5 % above {high:,.0f})",
            )
        marks = [p for n, p in enumerate(layer.states) if n & (n + 1) == 0 or n == len(layer.states) - 1]
        rows = [
            (
                f"{p.position:,}",
                f"{p.norm:.3f}",
                f"{p.change:.3f}",
                f"{p.similarity_to_initial:.3f}",
                "-" if p.similarity_to_previous is None else f"{p.similarity_to_previous:.3f}",
                f"{p.states_share:.3f}",
                f"{p.states_read:.1f}",
                f"{p.mass_on_previous_block:.3f}",
            )
            for p in marks
        ]
        columns = ("position", "norm", "change per block", "similarity to initial", "to 1,000 tokens before")
        more = ("share of states", "states attended to", "mass on previous block")
        table(console, (*columns, *more), rows, f"states of layer {layer.layer}")


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Prints the paired differences from the baseline, and the most improved words."""
    about = comparison.data
    title = f"on {about.label}, {about.split}, {about.scope}: {comparison.tokens:,} scored tokens"
    names = ResultSet(runs=(), comparisons=(comparison,))
    rows = [(names.name_of(comparison.baseline), f"{comparison.bits_per_byte.value:.4f}", "baseline", "", "", "")]
    for item in comparison.differences:
        better = f"{item.documents_better:,} of {comparison.documents:,}"
        p = "-" if item.p_value is None else p_value(item.p_value)
        own = f"{item.bits_per_byte.value:.4f}"
        rows.append((names.name_of(item.subject), own, *_cells(item.improvement_per_byte, sign="+"), p, better))
    columns = ("model", "bits per byte", "saved", f"{comparison.bootstrap.level:.0%} interval", "p", "documents better")
    table(console, columns, rows, title)
    reach = p_value(smallest_p_value(comparison.documents))
    line(console, f"p: sign-flip test over documents; the smallest possible with {comparison.documents:,} is {reach}")
    for item in comparison.differences:
        _show_words(console, item, names.name_of(item.subject))


def _show_words(console: Console, difference: Difference, name: str) -> None:
    study = difference.words
    groups = [
        (
            {"never": "first occurrence", "inside": "within the window", "beyond": "beyond the window"}[group.reach],
            "names" if group.name else "other words",
            f"{group.words:,}",
            *_cells(group.improvement, sign="+"),
        )
        for group in study.groups
    ]
    line(console, "")
    columns = ("last occurred", "", "words", "bits saved per word", "interval")
    table(console, columns, groups, f"{name}: what improves ({study.rule})")
    shown = study.sampled
    names, outside = sum(word.name for word in shown), sum(word.reach != "inside" for word in shown)
    rows = [
        (
            word.text,
            f"{word.baseline_bits:.1f} -> {word.bits:.1f}",
            "-" if word.tokens_since is None else f"{word.tokens_since:,}",
            word.reach,
            "yes" if word.name else "no",
            f"{word.document_name} @ {word.position:,}",
        )
        for word in shown
    ]
    title = (
        f"most improved words of {len(study.sampled_documents)} documents drawn at random: {names} of {len(shown)} are "
        f"names, {outside} of {len(shown)} did not occur within the window"
    )
    table(console, ("word", "bits", "tokens since", "reach", "name", "where"), rows, title)


def _title(subject: Subject, data: DataSet) -> str:
    step = "" if subject.step is None else f", step {subject.step:,}"
    return f"{subject.name}{step} on {data.label}, {data.split}"


def _perplexity(estimate: Estimate) -> tuple[str, str]:
    return perplexity(estimate.value), interval(estimate, perplexity) or "-"


def _cells(estimate: Estimate, sign: str = "") -> tuple[str, str]:
    interval = "-" if estimate.low is None else f"{estimate.low:{sign},.4f} to {estimate.high:{sign},.4f}"
    return f"{estimate.value:{sign},.4f}", interval
