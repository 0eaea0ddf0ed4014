"""The type checker of jaxtyping's import hook; see `tests/conftest.py`."""

from collections.abc import Callable
from typing import Any

import jax.export
from beartype import BeartypeConf, FrozenDict, beartype

# In exported programs the size of an axis is a symbol.
_SYMBOL = type(jax.export.symbolic_shape("B")[0])
_CHECKER = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({int: int | _SYMBOL})))


def check_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks the annotations of a function at every call, except those of constructors.

    JAX calls the constructor of a pytree dataclass for every `tree.map`, `vmap` and `scan`, with leaves that are not
    the annotated arrays: one row, stacked layers, shapes, shardings, placeholders. Every class with array annotations
    in its constructor is such a dataclass.
    """
    return function if function.__name__ == "__init__" else _CHECKER(function)
