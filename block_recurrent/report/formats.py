"""Numbers as the page writes them."""

import shlex
from collections.abc import Sequence

import markupsafe

from block_recurrent.evaluation.records import Estimate

_HUGE = 1e5
ABSENT = "\N{EN DASH}"


def number(value: float | None, digits: int = 4) -> str:
    """With thousands parted; integers without decimals; a dash for what is not there."""
    if value is None:
        return ABSENT
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def short(value: float, digits: int = 4) -> str:
    """As `number`, but three digits and a power of ten of what is huge, as perplexities can be."""
    return number(value, digits) if abs(value) < _HUGE else f"{value:.2e}"


def signed(value: float, digits: int = 4) -> str:
    """With its sign."""
    return f"{value:+,.{digits}f}"


def interval(estimate: Estimate, digits: int = 4) -> str:
    """Both ends of an estimate's interval; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{short(estimate.low, digits)} to {short(estimate.high, digits)}"


def marked_code(text: str) -> markupsafe.Markup:
    """Text of a result, with what stands between backticks as code."""
    parts = (
        markupsafe.Markup("<code>{}</code>" if k % 2 else "{}").format(part) for k, part in enumerate(text.split("`"))
    )
    return markupsafe.Markup().join(parts)


def p_value(value: float | None) -> str:
    """A p-value; a dash where a single document allows none."""
    return ABSENT if value is None else f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"


def command(words: Sequence[str]) -> str:
    """A recorded command line as one would type it."""
    program, *rest = words
    named = "python -m block_recurrent" if program.endswith("__main__.py") else shlex.quote(program)
    return " ".join([named, shlex.join(rest)])
