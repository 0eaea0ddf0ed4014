"""The option `--import` of every command: modules from outside the package that register cells, gates or sources."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from block_recurrent.registry import IMPORT_OPTION, import_modules

_NAME = "modules"
_Modules = Annotated[
    list[str] | None,
    typer.Option(
        IMPORT_OPTION,
        metavar="MODULE",
        help="Python module to import first, such as one that registers a gate (docs/extending.md). Repeatable.",
    ),
]


def takes_modules(command: Any) -> Callable[..., None]:
    """Returns a command that imports the modules of `--import` before it runs.

    Files never import modules, because their author may be a stranger: the user names them here or in a gin file.
    """

    def run(*arguments: Any, **options: Any) -> None:
        import_modules(options.pop(_NAME) or ())
        command(*arguments, **options)

    wrapped: Any = functools.wraps(command)(run)
    signature = inspect.signature(command)
    option = inspect.Parameter(_NAME, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Modules)
    wrapped.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])
    wrapped.__annotations__ = command.__annotations__ | {_NAME: _Modules}
    return wrapped
