"""Numbers as the page writes them."""

from block_recurrent.analysis.records import Estimate

ABSENT = "\N{EN DASH}"


def number(value: float | None, digits: int = 4) -> str:
    """With thousands parted; integers without decimals; a dash for what is not there."""
    if value is None:
        return ABSENT
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def signed(value: float, digits: int = 4) -> str:
    """With its sign."""
    return f"{value:+,.{digits}f}"


def interval(estimate: Estimate, digits: int = 4) -> str:
    """Both ends of an estimate's interval; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:,.{digits}f} to {estimate.high:,.{digits}f}"


def p_value(value: float | None) -> str:
    """A p-value; a dash where a single document allows none."""
    return ABSENT if value is None else f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"
