"""The text sources by name."""

from collections.abc import Callable

from block_recurrent.config import PrepareConfig
from block_recurrent.data.sources.document import Source
from block_recurrent.data.sources.python_stdlib import PythonStdlib
from block_recurrent.errors import InputError

SOURCES: dict[str, Callable[[PrepareConfig], Source]] = {
    "python_stdlib": lambda config: PythonStdlib(),
}


def load_source(config: PrepareConfig) -> Source:
    """The source that a configuration names.

    Args:
        config: its `source` is looked up, and the source takes from it what it needs.

    Returns:
        The source.

    Raises:
        InputError: there is no such source, or it does not find its input.
    """
    if config.source not in SOURCES:
        raise InputError(f"PrepareConfig.source = {config.source!r}: must be one of {', '.join(sorted(SOURCES))}")
    return SOURCES[config.source](config)
