"""The modules of docs/extending.md, as a user saves them: one file for each code block."""

import re
import sys
from pathlib import Path

from block_recurrent.registry import import_modules

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def write_examples(folder: Path) -> Path:
    """Writes each block that begins with the name of a file into the folder, and returns the folder."""
    for name, content in re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        (folder / name).write_text(content)
    return folder


def import_examples(folder: Path, *modules: str) -> None:
    """Imports example modules into this process, once."""
    if not set(modules) <= sys.modules.keys():
        sys.path.insert(0, str(write_examples(folder)))
        try:
            import_modules(modules)
        finally:
            sys.path.remove(str(folder))
