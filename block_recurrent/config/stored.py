"""Configurations from JSON, including those that earlier versions wrote."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

import msgspec

from block_recurrent.config.model import ModelConfig
from block_recurrent.config.run import RunConfig
from block_recurrent.config.training import TrainConfig
from block_recurrent.errors import InputError, first_line
from block_recurrent.registry import check_modules

# Fields of earlier versions that never changed results.
_REMOVED: dict[type, tuple[str, ...]] = {TrainConfig: ("sample_tokens", "sample_prompt")}


def read_run_config(stored: Any, where: object, modules: Any = None) -> RunConfig:
    """Returns the run configuration of a JSON object that `dataclasses.asdict` wrote.

    Fields that are missing, because the object is older than they are, have their defaults.

    Args:
        stored: the JSON object.
        where: file of the object, for error messages.
        modules: modules that the file records (`registry.modules_of`). They are never imported here.

    Raises:
        InputError: a field is unknown, has a value that is not allowed, or is missing and has no default; or a module
            has not been imported.
    """
    if isinstance(stored, Mapping):
        _check_modules(stored.get("model"), where, modules)
    return _read(RunConfig, stored, where)


def read_model_config(stored: Any, where: object, modules: Any = None) -> ModelConfig:
    """Returns the model configuration of a JSON object; see `read_run_config`."""
    _check_modules(stored, where, modules)
    return _read(ModelConfig, stored, where)


def _check_modules(model: Any, where: object, modules: Any) -> None:
    if modules is None or not isinstance(model, Mapping):
        return
    try:
        check_modules(model, msgspec.convert(modules, dict[str, str]), where)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: modules = {modules!r}: {first_line(error)}") from None


def _read(kind: Any, stored: Any, where: object) -> Any:
    if not isinstance(stored, Mapping):
        raise InputError(f"{where}: {kind.__name__} must be a JSON object, not {stored!r}")
    types = {field.name: get_type_hints(kind)[field.name] for field in dataclasses.fields(kind)}
    given = {name: value for name, value in stored.items() if name not in _REMOVED.get(kind, ())}
    if unknown := sorted(given.keys() - types.keys()):
        raise InputError(
            f"{where}: {kind.__name__}.{unknown[0]}: unknown field; this version knows {', '.join(sorted(types))}"
        )
    values = {name: _value(kind, name, types[name], value, where) for name, value in given.items()}
    try:
        return kind(**values)
    except TypeError as error:  # a field without a default is missing
        raise InputError(f"{where}: {kind.__name__}: {first_line(error)}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _value(kind: Any, name: str, expected: Any, value: Any, where: object) -> Any:
    if dataclasses.is_dataclass(expected):
        return _read(expected, value, where)
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {kind.__name__}.{name} = {value!r}: {first_line(error)}") from None
