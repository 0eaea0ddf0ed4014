"""Formats of numbers and texts on the page."""

import shlex
from collections.abc import Sequence

import markupsafe

from block_recurrent.evaluation.records import Estimate

_HUGE = 1e5
ABSENT = "\N{EN DASH}"


def number(value: float | None, digits: int = 4) -> str:
    """Formats a number with thousands separators, integers without decimals; a dash for None."""
    if value is None:
        return ABSENT
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def short(value: float, digits: int = 4) -> str:
    """Formats like `number`, but huge values, such as some perplexities, with three digits and an exponent."""
    return number(value, digits) if abs(value) < _HUGE else f"{value:.2e}"


def signed(value: float, digits: int = 4) -> str:
    """Formats a number with its sign."""
    return f"{value:+,.{digits}f}"


def interval(estimate: Estimate, digits: int = 4) -> str:
    """Formats the two ends of an estimate's interval; empty without an interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{short(estimate.low, digits)} to {short(estimate.high, digits)}"


def marked_code(text: str) -> markupsafe.Markup:
    """Converts the text of a result to HTML; text between backticks becomes code."""
    parts = (
        markupsafe.Markup("<code>{}</code>" if k % 2 else "{}").format(part) for k, part in enumerate(text.split("`"))
    )
    return markupsafe.Markup().join(parts)


def p_value(value: float | None) -> str:
    """Formats a p-value; a dash for None."""
    return ABSENT if value is None else f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"


def command(words: Sequence[str]) -> str:
    """Formats a recorded command line so that it can be pasted into a shell."""
    program, *rest = words
    named = "python -m block_recurrent" if program.endswith("__main__.py") else shlex.quote(program)
    return " ".join([named, shlex.join(rest)])
