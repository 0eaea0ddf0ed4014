"""Figures as files, and the script that draws them in a browser. The only module that imports vl_convert."""

import functools

import vl_convert
from etils import epath

from block_recurrent.report.charts import Figure
from block_recurrent.report.theme import LIGHT

_VEGA_LITE = "6.4"  # what altair's specifications are written for; a test compares
_WIDTH = 720  # pixels; the page's figures take the room that they find
_PNG_SCALE = 2


def write_pictures(figure: Figure, folder: epath.Path) -> None:
    """Writes NAME.svg and NAME.png into a folder that is there."""
    spec = figure.spec | {"width": _WIDTH}
    svg = vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE, config=LIGHT)
    png = vl_convert.vegalite_to_png(spec, vl_version=_VEGA_LITE, config=LIGHT, scale=_PNG_SCALE)
    (folder / f"{figure.name}.svg").write_text(svg)
    (folder / f"{figure.name}.png").write_bytes(png)


@functools.cache
def embedding_script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that defines `vegaEmbed`; nothing is fetched to make it."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)
