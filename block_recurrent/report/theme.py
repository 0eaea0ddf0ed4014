"""Colours, fonts and legends of the figures for light and dark themes; the specifications contain none of them."""

from collections.abc import Iterable
from typing import Any

# Distinct with colour-vision deficiencies, and legible on both backgrounds.
PALETTE = ("#3578c9", "#d97b1f", "#2f9a6c", "#c4487d", "#8866cc", "#9a8427", "#2d9fb3", "#8a8f98")
# Pixels of a letter and of a symbol with its margins; letters of the shortest label that legends make room for.
_LETTER, _SYMBOL, _SHORTEST = 7, 36, 24
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def _config(*, ink: str, faint: str, grid: str, background: str) -> dict[str, Any]:
    return {
        "background": background,
        "font": _FONT,
        "range": {"category": list(PALETTE)},
        "view": {"stroke": None},
        "axis": {
            "labelColor": faint,
            "titleColor": ink,
            "gridColor": grid,
            "domainColor": grid,
            "tickColor": grid,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
        },
        "legend": {
            "labelColor": ink,
            "titleColor": faint,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "orient": "top",
            "labelLimit": 0,  # no limit
            # One legend under another.
            "layout": {"top": {"direction": "vertical", "anchor": "start", "margin": 4}},
        },
        "rule": {"color": faint},
        "title": {"color": ink, "fontSize": 13, "fontWeight": 600, "anchor": "start"},
    }


def with_legend_columns(config: dict[str, Any], labels: Iterable[str], width: int) -> dict[str, Any]:
    """Returns a configuration with as many columns of legends as fit a width in pixels."""
    longest = max(map(len, labels), default=0)
    columns = max(1, width // (_LETTER * max(longest, _SHORTEST) + _SYMBOL))
    return config | {"legend": config["legend"] | {"columns": columns}}


LIGHT = _config(ink="#1c2024", faint="#5b636d", grid="#e3e6ea", background="#ffffff")
DARK = _config(ink="#e6e8eb", faint="#a3abb5", grid="#343b43", background="#171b20")
