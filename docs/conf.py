"""Sphinx configuration of the documentation site: `make docs` builds it into `site/`, and a warning ends the build.

The source folder is the whole repository, so that links between files work on the site as they do in the repository.
"""

import re
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.application import Sphinx

project = "Block-Recurrent Transformers"
author = "the developers"
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "gin/README.md",
    "experiments/laptop/*.md",
    "experiments/studies/results/*.md",
    "experiments/tpu/*.md",
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
napoleon_use_ivar = True
copybutton_exclude = ".linenos, .gp, .go"
html_theme = "furo"
html_title = project
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["static/front"]
html_show_sphinx = False
html_show_copyright = False
default_role = "literal"  # docstrings write `name` as Markdown does


def inline_formula(writer: Any, node: Any) -> None:
    """Writes a formula inside a sentence."""
    writer.body.append(convert(node.astext()))
    raise SkipNode


def formula(writer: Any, node: Any) -> None:
    """Writes a formula of its own, with its number."""
    writer.body.append(f'<div class="equation" id="equation-{node["label"] or ""}">')
    writer.body.append(convert(node.astext(), display="block"))
    if node["number"]:
        writer.body.append(f'<span class="number">({node["number"]})</span>')
    writer.body.append("</div>")
    raise SkipNode


def without_folders(app: Sphinx, page: str, source: list[str]) -> None:
    """Turns links to folders, which a repository shows and a site does not, into text."""

    def plain(match: re.Match[str]) -> str:
        return match[1] if (Path(app.srcdir, page).parent / match[2]).is_dir() else match[0]

    source[0] = re.sub(r"\[([^\]]+)\]\(([^)#:]+)\)", plain, source[0])


def setup(app: Sphinx) -> None:
    """Renders formulas as MathML, which browsers show without a script from another server."""
    app.connect("source-read", without_folders)
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))
