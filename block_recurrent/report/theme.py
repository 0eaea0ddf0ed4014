"""Colours and fonts of the figures for light and dark themes; the specifications contain neither."""

from typing import Any

# Distinct with colour-vision deficiencies, and legible on both backgrounds.
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
