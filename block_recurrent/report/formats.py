"""Numbers as the page writes them."""

import markupsafe

from block_recurrent.analysis.records import Estimate

_HUGE = 1e6
ABSENT = "\N{EN DASH}"


def number(value: float | None, digits: int = 4) -> str:
    """With thousands parted; integers without decimals; a dash for what is not there; 3 digits of what is huge."""
    if value is None:
        return ABSENT
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}" if abs(value) < _HUGE else f"{value:.2e}"


def signed(value: float, digits: int = 4) -> str:
    """With its sign."""
    return f"{value:+,.{digits}f}"


def interval(estimate: Estimate, digits: int = 4) -> str:
    """Both ends of an estimate's interval; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"


def marked_code(text: str) -> markupsafe.Markup:
    """Text of a result, with what stands between backticks as code."""
    parts = (
        markupsafe.Markup("<code>{}</code>" if k % 2 else "{}").format(part) for k, part in enumerate(text.split("`"))
    )
    return markupsafe.Markup().join(parts)


def p_value(value: float | None) -> str:
    """A p-value; a dash where a single document allows none."""
    return ABSENT if value is None else f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"
