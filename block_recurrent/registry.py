"""Registries of the classes that a name in a configuration stands for: cells, gates, trackers.

A registry knows the names of the built-in classes before their modules are imported, so that a configuration can be
checked without model code. A module outside the package registers a class of its own when it is imported
(docs/extending.md).
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from block_recurrent.errors import InputError, first_line

_Class = TypeVar("_Class", bound=type[Any])
_PACKAGE = __name__.partition(".")[0]
IMPORT_OPTION = "--import"  # of every command


class Registry:
    """Classes by name.

    Args:
        field: the field or option whose value is a name, such as `ModelConfig.gate`, for messages.
        noun: the thing that is registered, such as `gate`.
        built_in: names that modules of this package register.
        requires: attributes that a class must define.
    """

    def __init__(self, field: str, noun: str, built_in: tuple[str, ...], *, requires: tuple[str, ...] = ()):
        self.field, self.noun, self._built_in, self._requires = field, noun, built_in, requires
        self._classes: dict[str, type[Any]] = {}
        self._used: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Names that a configuration may use: the built-in ones and those of imported modules."""
        return (*self._built_in, *(name for name in self._classes if name not in self._built_in))

    def register(self, name: str) -> Callable[[_Class], _Class]:
        """Returns a class decorator that registers the class.

        Args:
            name: the name in configurations, a Python identifier.

        Raises:
            InputError: the name is taken or no identifier, or the class lacks a required attribute.
        """

        def add(cls: _Class) -> _Class:
            self._check(name, cls)
            self._classes[name] = cls
            return cls

        return add

    def _check(self, name: str, cls: type[Any]) -> None:
        where = f"{self.noun} {name!r} of {cls.__module__}.{cls.__qualname__}"
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"{where}: the name must be a Python identifier, such as my_{self.noun}")
        if name in self._built_in and cls.__module__.partition(".")[0] != _PACKAGE:
            raise InputError(f"{where}: the name of a built-in {self.noun}; choose another one")
        known = self._classes.get(name)
        if known is not None and known.__module__ != cls.__module__:
            raise InputError(f"{where}: {known.__module__} has registered this name already; choose another one")
        if name in self._used:  # compiled programs hold the old class
            raise InputError(f"{where}: is in use already; restart Python to change the class, or choose another name")
        if missing := [attribute for attribute in self._requires if _is_abstract(cls, attribute)]:
            raise InputError(f"{where}: the class must define {', '.join(missing)}")

    def get(self, name: str) -> type[Any]:
        """Returns a class by name; the module of a built-in class must have been imported.

        Raises:
            InputError: no class has this name.
        """
        if name not in self._classes:
            raise InputError(f"{self.field} = {name!r}: must be {self.allowed}")
        self._used.add(name)
        return self._classes[name]

    @property
    def allowed(self) -> str:
        """The allowed names, for messages."""
        return f"one of {', '.join(map(repr, self.names))}, or a {self.noun} of an imported module ({IMPORT_OPTION})"

    def module_of(self, name: str) -> str | None:
        """Returns the name of the module that registered a class from outside the package; None for other names."""
        return None if name in self._built_in or name not in self._classes else self._classes[name].__module__


def _is_abstract(cls: type[Any], attribute: str) -> bool:
    return getattr(getattr(cls, attribute, None), "__isabstractmethod__", not hasattr(cls, attribute))


# `model.layers` registers the built-in cells and gates, `training.wandb_tracker` the built-in tracker.
CELLS = Registry("ModelConfig.cell", "cell", ("dual", "single", "skip"), requires=("update", "fused_weights", "flops"))
GATES = Registry("ModelConfig.gate", "gate", ("fixed", "lstm"), requires=("gates", "flops"))
TRACKERS = Registry("--tracker", "tracker", ("wandb",), requires=("write", "close"))
_MODEL_FIELDS = {"cell": CELLS, "gate": GATES}


def check_names(config: object) -> None:
    """Checks the fields of a `ModelConfig` whose values are names of classes.

    Raises:
        InputError: a name is unknown.
    """
    for field, registry in _MODEL_FIELDS.items():
        value = getattr(config, field)
        if not isinstance(value, str) or value not in registry.names:
            raise InputError(f"{registry.field} = {value!r}: must be {registry.allowed}")


def modules_of(config: object) -> dict[str, str]:
    """Returns the modules from outside the package that a `ModelConfig` needs, by the name of the field.

    Files record it as `modules`, such as `{"gate": "my_gates"}`; empty for built-in cells and gates.
    """
    found = {field: registry.module_of(getattr(config, field)) for field, registry in _MODEL_FIELDS.items()}
    return {field: module for field, module in found.items() if module is not None}


def check_modules(model: Mapping[str, Any], modules: Mapping[str, str], where: object) -> None:
    """Checks that the modules which a file records have been imported.

    A file never imports a module: its author may be a stranger. The user names the module.

    Args:
        model: fields of the file's `ModelConfig`.
        modules: result of `modules_of` when the file was written.
        where: the file, for messages.

    Raises:
        InputError: a module has not been imported, or another module registered the name.
    """
    for field, module in modules.items():
        registry = _MODEL_FIELDS.get(field)
        if registry is None:
            continue  # of a later version, which `ModelConfig` refuses by its own field
        name = model.get(field, "")
        start = f"{where}: {registry.field} = {name!r} is defined in the module {module}"
        if name not in registry.names:
            raise InputError(
                f"{start}, which is not imported. If you trust that code, add {IMPORT_OPTION} {module} to the command, "
                f"or a line `import {module}` to the gin file or program"
            )
        if registry.module_of(name) != module:
            raise InputError(
                f"{start}, but {registry.module_of(name) or 'this package'} defines it here. Import {module} instead; "
                f"if the module was only renamed, write its new name into `modules` of the file"
            )


def import_modules(modules: Iterable[str]) -> None:
    """Imports modules that the user named.

    Raises:
        InputError: a module is not found or fails.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except InputError:
            raise
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
                remedy = "put its folder on PYTHONPATH, or start `python -m block_recurrent` in that folder"
                raise InputError(f"{IMPORT_OPTION} {module}: no such module; {remedy}") from None
            message = f"{IMPORT_OPTION} {module}: fails: {type(error).__name__}: {first_line(error)}"
            raise InputError(message) from error
