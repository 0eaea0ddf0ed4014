"""Colours and lettering of the figures, on light and on dark ground; the specifications themselves name neither."""

from typing import Any

# Told apart by people who see colours differently, and legible on both grounds.
PALETTE = ("#3578c9", "#d97b1f", "#2f9a6c", "#c4487d", "#8866cc", "#9a8427", "#2d9fb3", "#8a8f98")
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
            "labelLimit": 300,
        },
        "rule": {"color": faint},
        "title": {"color": ink, "fontSize": 13, "fontWeight": 600, "anchor": "start"},
    }


LIGHT = _config(ink="#1c2024", faint="#5b636d", grid="#e3e6ea", background="#ffffff")
DARK = _config(ink="#e6e8eb", faint="#a3abb5", grid="#343b43", background="#171b20")
