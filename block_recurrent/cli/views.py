"""Views that several commands print: prepared stores, scores of texts, and the results of a run."""

import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

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
    """Prints every text source: its documents, its input, and the seqio tasks of the same documents."""
    rows = [(name, entry.summary, entry.input or "-", ", ".join(entry.tasks)) for name, entry in SOURCES.items()]
    table(console, ("source", "documents", "PrepareConfig.input", "seqio tasks"), rows)


def show_prepared(console: Console, summaries: Sequence[SplitSummary]) -> None:
    """Prints one line for each prepared split, then the documents that were left out or repaired, by reason."""
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
    source = first.source if first.name == first.source else f"{first.name}, source {first.source}"
    line(console, f"{summaries[0].path.parent}: {source}{details}, vocabulary {first.vocabulary.spec}")
    names = ("split", "documents", "tokens", "bytes", "characters", "words", "longest", "median", "unknown")
    table(console, (*names, "fingerprint", ""), rows)
    for summary in summaries:
        for reason, count in summary.metadata.left_out.items():
            line(console, f"{summary.metadata.split}: {count:,} {reason}")
        for warning in summary.warnings:
            line(console, f"warning: {warning}")


def show_store(console: Console, store: TokenStore) -> None:
    """Prints a store's summary and a chart of its documents' lengths."""
    table(console, (str(store.path), ""), inspection.describe(store))
    bins = inspection.length_histogram(store.lengths)
    most = max((b.documents for b in bins), default=1)
    rows = [
        (f"{b.low:,} to {b.high - 1:,}", f"{b.documents:,}", f"{b.tokens:,}", "█" * -(-_BAR * b.documents // most))
        for b in bins
    ]
    table(console, ("tokens of a document", "documents", "tokens", ""), rows)


def show_text_scores(console: Console, scores: Sequence[Score]) -> None:
    """Prints the log-probability of each text, and of all texts together."""
    rows = [_score_row(str(score.text), [score]) for score in scores]
    if len(scores) > 1:
        rows.append(_score_row("all", scores))
    names = ("text", "scored tokens", "their bytes", "log-probability (nats)", "bits per token", "bits per byte")
    table(console, names, rows)


def _score_row(name: str, scores: Sequence[Score]) -> list[str]:
    tokens, size = sum(len(score.tokens) for score in scores), sum(score.bytes for score in scores)
    log_probability = sum(score.log_probability for score in scores)
    bits = -log_probability / math.log(2)
    per_byte = f"{bits / size:.4f}" if size else "-"
    return [name, f"{tokens:,}", f"{size:,}", f"{log_probability:,.4f}", f"{bits / tokens:.4f}", per_byte]


def show_result(console: Console, split: str, result: TrainResult) -> None:
    """Prints the first and the last evaluation of a run."""
    for label, scores in (("start", result.first_evaluation), ("end", result.last_evaluation)):
        scope = "whole split" if scores["complete"] else "first segments of each row"
        counts = (
            f"{scores['tokens']:,} scored tokens of {scores['documents']} documents, {scope}, step {scores['step']}"
        )
        line(console, f"{split} at the {label}: {scores['bits_per_byte']:.4f} bits per byte ({counts})")


def show_next_steps(console: Console, workdir: str, split: str) -> None:
    """Prints the run's files, and commands that can be pasted in the current folder.

    Args:
        console: where to print.
        workdir: the run's folder, as the user wrote it.
        split: a split of the run's store.
    """
    python, folder = shlex.quote(interpreter()), shlex.quote(workdir)
    rows = {
        "checkpoints": f"{workdir}/checkpoints",
        "metrics": f"{workdir}/metrics.jsonl and {workdir}/tensorboard",
        "configuration": f"{workdir}/run.json and {workdir}/config.gin",
        "curves": f"{python} -m pip install tensorboard && {python} -m tensorboard.main --logdir {folder}/tensorboard",
        "evaluate": f"{python} -m block_recurrent evaluate --workdir {folder} --split {shlex.quote(split)}",
        "sample": f'{python} -m block_recurrent generate --workdir {folder} --prompt "The "',
        "continue": "the same train command; it continues an interrupted run; for more steps see docs/training.md",
    }
    for name, value in rows.items():
        line(console, f"  {name:14}{value}")


def interpreter() -> str:
    """Returns the path of this Python: relative if it is below the current folder, so that it is short to paste."""
    executable = Path(sys.executable)
    return str(executable.relative_to(Path.cwd()) if executable.is_relative_to(Path.cwd()) else executable)
