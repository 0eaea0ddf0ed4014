"""Formats of numbers and texts on the page."""

import shlex
from collections.abc import Callable, Sequence

import markupsafe

from block_recurrent.evaluation.bootstrap import smallest_p_value
from block_recurrent.evaluation.records import Estimate

_HUGE = 1e5
_FIGURES = 4
_TIMES = "\N{MULTIPLICATION SIGN}"
_RAISED = str.maketrans("0123456789-", "\N{SUPERSCRIPT ZERO}¹²³⁴⁵⁶⁷⁸⁹\N{SUPERSCRIPT MINUS}")
ABSENT = "\N{EN DASH}"


def number(value: float | None, digits: int = 4) -> str:
    """Formats a number with thousands separators, integers without decimals; a dash for None."""
    if value is None:
        return ABSENT
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def perplexity(value: float) -> str:
    """Formats a perplexity with four significant figures; huge ones with a power of ten."""
    if value >= _HUGE:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{digits}{_TIMES}10{str(int(exponent)).translate(_RAISED)}"
    return f"{value:,.{max(0, _FIGURES - len(str(int(value))))}f}"


def signed(value: float, digits: int = 4) -> str:
    """Formats a number with its sign."""
    return f"{value:+,.{digits}f}"


def interval(estimate: Estimate, form: Callable[[float], str] = number) -> str:
    """Formats the two ends of an estimate's interval; empty without an interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{form(estimate.low)} to {form(estimate.high)}"


def marked_code(text: str) -> markupsafe.Markup:
    """Converts the text of a result to HTML; text between backticks becomes code."""
    parts = (
        markupsafe.Markup("<code>{}</code>" if k % 2 else "{}").format(part) for k, part in enumerate(text.split("`"))
    )
    return markupsafe.Markup().join(parts)


def p_value(value: float | None) -> str:
    """Formats a p-value; a dash for None."""
    return ABSENT if value is None else f"{value:.2g}" if value >= 0.001 else f"{value:.4f}"


def p_value_with_reach(value: float | None, documents: int) -> str:
    """Formats a p-value and the smallest one that the test can give for this number of documents."""
    reach = p_value(smallest_p_value(documents))
    return f"p = {p_value(value)}; the smallest possible with {documents:,} documents is {reach}"


def command(words: Sequence[str]) -> str:
    """Formats a recorded command line so that it can be pasted into a shell."""
    program, *rest = words
    named = "python -m block_recurrent" if program.endswith("__main__.py") else shlex.quote(program)
    return " ".join([named, shlex.join(rest)])
