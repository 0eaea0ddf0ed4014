"""What the commands print: prepared stores, scores of texts, and the results of a run."""

import math
from collections.abc import Sequence

from rich.console import Console

from block_recurrent.cli.console import line, table
from block_recurrent.data.preparation.prepare import SplitSummary
from block_recurrent.data.sources.catalog import SOURCES
from block_recurrent.data.store import inspection
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.generation.scoring import Score
from block_recurrent.training.loop import TrainResult

_BAR = 40


def show_sources(console: Console) -> None:
    """Every text source: what a document is, what it reads, and the seqio tasks of the same documents."""
    rows = [(name, entry.summary, entry.input or "-", ", ".join(entry.tasks)) for name, entry in SOURCES.items()]
    table(console, ("source", "documents", "PrepareConfig.input", "seqio tasks"), rows)


def show_prepared(console: Console, summaries: Sequence[SplitSummary]) -> None:
    """What `prepare` made, a line for each split; what was left out or repaired, by reason."""
    rows = []
    for summary in summaries:
        about, counts = summary.metadata, summary.metadata.counts
        numbers = (counts.documents, counts.tokens, counts.bytes, counts.characters, counts.words)
        lengths = (counts.longest_document, round(counts.median_document))
        unknown = f"{counts.unknown_tokens / max(counts.tokens, 1):.3%}"
        written = "unchanged" if summary.unchanged else "written"
        cells = [f"{number:,}" for number in (*numbers, *lengths)]
        rows.append([about.split, *cells, unknown, about.fingerprint[:12], written])
    first = summaries[0].metadata
    details = "".join(f", {name} {value}" for name, value in sorted(first.settings.items()))
    line(console, f"{summaries[0].path.parent}: {first.source}{details}, vocabulary {first.vocabulary.spec}")
    names = ("split", "documents", "tokens", "bytes", "characters", "words", "longest", "median", "unknown")
    table(console, (*names, "fingerprint", ""), rows)
    for summary in summaries:
        for reason, count in summary.metadata.left_out.items():
            line(console, f"{summary.metadata.split}: {count:,} {reason}")
        for warning in summary.warnings:
            line(console, f"warning: {warning}")


def show_store(console: Console, store: TokenStore) -> None:
    """A store's summary and a chart of its documents' lengths."""
    table(console, (str(store.path), ""), inspection.describe(store))
    bins = inspection.length_histogram(store.lengths)
    most = max((b.documents for b in bins), default=1)
    rows = [
        (f"{b.low:,} to {b.high - 1:,}", f"{b.documents:,}", f"{b.tokens:,}", "█" * -(-_BAR * b.documents // most))
        for b in bins
    ]
    table(console, ("tokens of a document", "documents", "tokens", ""), rows)


def show_text_scores(console: Console, scores: Sequence[Score]) -> None:
    """What each text costs, and all of them together."""
    rows = [_score_row(str(score.text), [score]) for score in scores]
    if len(scores) > 1:
        rows.append(_score_row("all", scores))
    names = ("text", "scored tokens", "their bytes", "log-probability (nats)", "bits per token", "bits per byte")
    table(console, names, rows)


def _score_row(name: str, scores: Sequence[Score]) -> list[str]:
    tokens, size = sum(len(score.tokens) for score in scores), sum(score.bytes for score in scores)
    nats = -sum(score.log_probability for score in scores)
    bits = nats / math.log(2)
    per_byte = f"{bits / size:.4f}" if size else "-"
    return [name, f"{tokens:,}", f"{size:,}", f"{-nats:,.4f}", f"{bits / tokens:.4f}", per_byte]


def show_result(console: Console, split: str, result: TrainResult) -> None:
    """What the run has come to."""
    for label, scores in (("start", result.first_evaluation), ("end", result.last_evaluation)):
        scope = "whole split" if scores["complete"] else "first segments of each row"
        counts = (
            f"{scores['tokens']:,} scored tokens of {scores['documents']} documents, {scope}, step {scores['step']}"
        )
        line(console, f"{split} at the {label}: {scores['bits_per_byte']:.4f} bits per byte ({counts})")


def show_next_steps(console: Console, workdir: str) -> None:
    """Where everything lies, and the commands to look at it, evaluate it and go on."""
    command = "python -m block_recurrent"
    rows = {
        "checkpoints": f"{workdir}/checkpoints",
        "metrics": f"{workdir}/metrics.jsonl and {workdir}/tensorboard",
        "configuration": f"{workdir}/run.json and {workdir}/config.gin",
        "look": f"tensorboard --logdir {workdir}/tensorboard   (pip install tensorboard)",
        "evaluate": f"{command} evaluate --workdir {workdir} --split test",
        "sample": f"{command} generate --workdir {workdir} --prompt-file setup.py",
        "continue": "the same train command; it says what is missing, and trains on when interrupted",
    }
    for name, value in rows.items():
        line(console, f"  {name:14}{value}")
