"""Image files of figures, and the script that draws figures in a browser. Only this module imports vl_convert."""

import functools

import vl_convert
from etils import epath

from block_recurrent.report.charts import Figure
from block_recurrent.report.theme import LIGHT, with_legend_columns

_VEGA_LITE = "6.4"  # the version of altair's specifications; a test compares them
_WIDTH = 720  # pixels; figures of the page have the width of their container
_PNG_SCALE = 2


def write_pictures(figure: Figure, folder: epath.Path) -> None:
    """Writes NAME.svg and NAME.png to an existing folder."""
    spec = figure.spec | {"width": _WIDTH}
    config = with_legend_columns(LIGHT, figure.runs, _WIDTH)
    svg = vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE, config=config)
    png = vl_convert.vegalite_to_png(spec, vl_version=_VEGA_LITE, config=config, scale=_PNG_SCALE)
    (folder / f"{figure.name}.svg").write_text(svg)
    (folder / f"{figure.name}.png").write_bytes(png)


@functools.cache
def embedding_script() -> str:
    """Returns Vega, Vega-Lite and Vega-Embed as one script that defines `vegaEmbed`; works without a network."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)
