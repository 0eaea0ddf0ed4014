"""Checks of configuration fields; errors name the class, the field, its value and the allowed values."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from block_recurrent.errors import InputError
from block_recurrent.files import expand

LARGEST_SEED = 2**63 - 1


def refuse(config: object, field: str, allowed: str) -> InputError:
    """Returns the error for a field with a value that is not allowed."""
    value = getattr(config, field)
    return InputError(f"{type(config).__name__}.{field} = {value!r}: must be {allowed}")


def check_integers(config: object, fields: Iterable[str], minimum: int, maximum: int = 2**31 - 1) -> None:
    """Checks that fields are integers from `minimum` to `maximum`."""
    for field in fields:
        value = getattr(config, field)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise refuse(config, field, f"an integer of at least {minimum}")
        if value > maximum:
            raise refuse(config, field, f"at most {maximum:,}")


def check_numbers(config: object, fields: Iterable[str], low: float, high: float = float("inf")) -> None:
    """Checks that fields are numbers from `low` to below `high`."""
    for field in fields:
        value = getattr(config, field)
        if not isinstance(value, int | float) or isinstance(value, bool) or not _is_between(value, low, high):
            number = (
                "a finite number" if isinstance(value, int | float) and not abs(value) < float("inf") else "a number"
            )
            bound = f"{number} of at least {low:g}" + (f" and below {high:g}" if high < float("inf") else "")
            raise refuse(config, field, bound)


def check_shares(config: object, fields: Iterable[str]) -> None:
    """Checks that fields are numbers from 0 to 1, both included."""
    for field in fields:
        value = getattr(config, field)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise refuse(config, field, "a number from 0 to 1")


def _is_between(value: float, low: float, high: float) -> bool:
    try:
        return low <= float(value) < high
    except OverflowError:  # an integer beyond the range of floats
        return False


def check_booleans(config: object, fields: Iterable[str]) -> None:
    """Checks that fields are True or False."""
    for field in fields:
        if not isinstance(getattr(config, field), bool):
            raise refuse(config, field, "True or False")


def check_texts(config: object, fields: Iterable[str]) -> None:
    """Checks that fields are non-empty texts."""
    for field in fields:
        value = getattr(config, field)
        if not isinstance(value, str) or not value:
            raise refuse(config, field, "a non-empty text")


def expand_paths(config: object, fields: Iterable[str]) -> None:
    """Expands `~` in fields that are paths or None; see `files.expand`."""
    for field in fields:
        if getattr(config, field) is not None:
            object.__setattr__(config, field, expand(getattr(config, field)))


def check_text_tuples(config: object, fields: Iterable[str]) -> None:
    """Checks that fields are None or texts, and converts lists to tuples."""
    for field in fields:
        value = getattr(config, field)
        if value is not None:
            if isinstance(value, str) or not value or not all(isinstance(item, str) and item for item in value):
                raise refuse(config, field, "None or a tuple of texts")
            object.__setattr__(config, field, tuple(value))  # gin also writes lists


def check_choices(config: object, choices: Mapping[str, Any]) -> None:
    """Checks that each field is one of the choices of its `Literal`."""
    for field, literal in choices.items():
        if getattr(config, field) not in get_args(literal):
            raise refuse(config, field, "one of " + ", ".join(repr(choice) for choice in get_args(literal)))
