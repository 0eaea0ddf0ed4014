"""Experiment files: the only module that knows gin. It turns `--gin-file`s into the classes of `config`."""

import contextlib
import dataclasses
import difflib
import inspect
import io
import logging
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gin
from block_recurrent import config as config_package
from block_recurrent.cli import gin_mistakes
from block_recurrent.config import DataConfig, MeshConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig
from block_recurrent.config.model import lstm_fields
from block_recurrent.errors import InputError
from block_recurrent.files import expand, local_path
from gin import config as gin_config
from gin import config_parser

_CLASSES = {
    name: cls
    for name, cls in vars(config_package).items()
    if dataclasses.is_dataclass(cls) and isinstance(cls, type) and cls is not RunConfig
}
for _cls in _CLASSES.values():
    gin.external_configurable(_cls, module=config_package.__name__)

_PARAM = "--gin-param"
# For `include '~/...'`.
gin_config.register_file_reader(
    lambda path: local_path(path).open(encoding="utf-8"), lambda path: local_path(path).is_file()
)
_EXAMPLE = "write CLASS.FIELD=VALUE, such as TrainConfig.num_steps=100"
# Where each field of the parsed experiment is bound, for error messages. Global, like gin's own bindings.
_places: dict[str, str] = {}


def parse(files: list[str] | None, params: list[str] | None) -> None:
    """Reads files and overrides into gin.

    Raises:
        InputError: a file does not exist or cannot be parsed, binds something unknown, or contradicts another file.
    """
    gin.clear_config()
    for root in _gin_roots():
        gin.add_config_file_search_path(str(root))
    files = [str(_find_gin_file(file, "--gin-file")) for file in files or []]
    params = params or []
    bindings = _bindings_of_files(files)
    for param in params:
        bindings |= _bindings_of_param(param)
    _refuse_unknown_names(bindings)
    for file in files:
        with _named(file), _without_log():
            gin.parse_config_file(file)
    for param in params:
        with _named(f"{_PARAM} {param}"):
            gin.parse_config(param)
    _refuse_unused_macros(params, bindings)
    _places.clear()
    _places.update({name: place for name, (_, place) in bindings.items()})


@contextlib.contextmanager
def _named(source: str) -> Iterator[None]:
    """Turns what gin raises into an error that names the statement."""
    try:
        yield
    except Exception as error:  # gin passes on whatever the import or lookup of a statement raised
        place, message = gin_mistakes.unresolved(error)
        class_name = message.partition(":")[0].partition("=")[0].strip().rpartition(".")[0].rpartition(".")[2]
        if class_name and class_name not in _CLASSES and isinstance(error, ValueError | AttributeError):
            message = f"{message.partition(':')[0]}: {gin_mistakes.no_such_class(class_name, _CLASSES)}"
        raise InputError(f"{place or source}: {message}") from None


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Drops gin's log lines about each folder in which an included file is not."""

    def wanted(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Path not found")

    logging.getLogger().addFilter(wanted)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(wanted)


def configured(cls: type[Any], defaults: Mapping[str, Any] | None = None) -> Any:
    """Returns the instance of a configuration class that the files describe.

    Args:
        cls: the class.
        defaults: values of fields that the files may leave out.

    Raises:
        InputError: a field without a default is not bound, or a value is not allowed.
    """
    bound = gin.get_bindings(cls)
    implied = dict(defaults or {}) | (lstm_fields() if cls is ModelConfig and bound.get("layer") == "lstm" else {})
    missing = dataclasses.MISSING
    required = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is missing and field.default_factory is missing and field.name not in bound | implied
    ]
    if required:
        raise InputError(f"{cls.__name__}: {', '.join(required)} not given; bind in a --gin-file or by --gin-param")
    try:
        return gin.get_configurable(cls)(**{name: implied[name] for name in implied.keys() - bound.keys()})
    except InputError as error:
        message = str(error).splitlines()[0]  # gin appends a line about the call
        place = _places.get(message.partition(" = ")[0])
        raise InputError(message if place is None else f"{message} ({place})") from None


def configured_run() -> RunConfig:
    """Returns the run that the files describe.

    Raises:
        InputError: as in `configured`, or the parts do not fit one another.
    """
    return RunConfig(
        model=configured(ModelConfig),
        data=configured(DataConfig),
        optimizer=configured(OptimizerConfig),
        train=configured(TrainConfig),
        mesh=configured(MeshConfig),
    )


def bindings(cls: type[Any]) -> dict[str, Any]:
    """Returns the fields of a class that the files and overrides bind, with their values."""
    return gin.get_bindings(cls)


def operative_config() -> str:
    """Returns the bindings that were used, in gin's format."""
    return gin.operative_config_str()


class _Macro(str):
    """A reference to a macro, such as `%STORE`."""


class _Unresolved(config_parser.ParserDelegate):
    """Keeps references and macros as text, which is enough to compare the bindings of two files."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return f"@{scoped_configurable_name}{'()' if evaluate else ''}"

    def macro(self, macro_name: str) -> Any:
        return _Macro(f"%{macro_name}")


_Bindings = dict[str, tuple[Any, str]]  # of each bound name its value and place


def _gin_roots() -> list[Path]:
    """Returns the folders in which files are looked up: working directory, checkout, installed package."""
    package = Path(__file__).parents[1]
    return [Path(), package.parent, package]


def _find_gin_file(file: str, named_by: str) -> Path:
    for root in _gin_roots():
        found = root / expand(file)
        if found.is_file():
            return found
    shipped = sorted({str(path.relative_to(root)) for root in _gin_roots()[1:] for path in root.glob("gin/runs/*.gin")})
    raise InputError(f"{named_by} {file}: no such file; ready to use: {', '.join(shipped) or 'none'}")


def _bindings_of_files(files: list[str]) -> _Bindings:
    """Returns the bindings of all files; refuses contradictions, where gin would silently take the later file."""
    seen: _Bindings = {}
    for file in files:
        for name, (value, place) in _bindings_of(file).items():
            if name in seen and seen[name][0] != value:
                other_value, other_place = seen[name]
                raise InputError(
                    f"--gin-file: {name} = {other_value!r} ({other_place}) and {name} = {value!r} ({place}) contradict "
                    "each other; use one of the files, or decide with --gin-param"
                )
            seen[name] = value, place
    return seen


def _bindings_of(file: str, including: tuple[str, ...] = ()) -> _Bindings:
    try:
        content = local_path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"--gin-file {file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"--gin-file {file}: is not UTF-8 text: {error.reason} at byte {error.start}") from None
    return _bindings_in(content, file, (*including, file))


def _bindings_of_param(param: str) -> _Bindings:
    found = _bindings_in(param, f"{_PARAM} {param}", ())
    if not found:
        raise InputError(f"{_PARAM} {param!r}: binds nothing; {_EXAMPLE}")
    return found


def _bindings_in(content: str, source: str, including: tuple[str, ...]) -> _Bindings:
    """Returns the bindings of one file, with its includes; a file overrides the files that it includes."""
    found: _Bindings = {}
    for statement in _statements(content, source):
        place = _place(source, statement.location.line_num)
        if isinstance(statement, config_parser.IncludeStatement):
            included = str(_find_gin_file(statement.filename, f"{place}: include"))
            if included_before := [file for file in including if Path(file).resolve() == Path(included).resolve()]:
                circle = " -> ".join((*including[including.index(included_before[0]) :], included))
                raise InputError(f"{place}: include {statement.filename}: the files include each other: {circle}")
            found |= _bindings_of(included, including)
        elif isinstance(statement, config_parser.BindingStatement):
            found[_name_of(statement)] = statement.value, place
    return found


def _name_of(statement: Any) -> str:
    # `config.ModelConfig` and `ModelConfig` are the same class, under whatever name it was imported.
    selector = statement.selector.rpartition(".")[2]
    if selector == "macro":
        return statement.scope
    return ".".join(part for part in (statement.scope, selector, statement.arg_name) if part)


def _statements(content: str, source: str) -> Iterator[Any]:
    line = 1  # of the last statement: the next one is where a bracket that is never closed begins
    try:
        for statement in config_parser.ConfigParser(io.StringIO(content), _Unresolved()):
            line = statement.location.line_num + 1
            yield statement
    except SyntaxError as error:
        line = error.lineno or line
        raise InputError(f"{_place(source, line)}: {gin_mistakes.unreadable(content, line, error.msg)}") from None
    except tokenize.TokenError as error:
        raise InputError(f"{_place(source, line)}: {gin_mistakes.unreadable(content, line, error.args[0])}") from None


def _place(source: str, line: int | None) -> str:
    return source if source.startswith(_PARAM) else f"{source}:{line}"


def _refuse_unknown_names(bindings: Mapping[str, tuple[Any, str]]) -> None:
    """Refuses unknown fields of our classes, scopes and undefined macros; gin reports other unknown names itself."""
    for name, (value, place) in bindings.items():
        class_name, _, field = name.rpartition(".")
        scope, _, unscoped = class_name.rpartition(".")
        if scope and unscoped in _CLASSES:
            raise InputError(f"{place}: {name}: scopes have no effect; write {unscoped}.{field}")
        if class_name in _CLASSES:
            cls = _CLASSES[class_name]
            if field not in inspect.signature(cls).parameters:  # removed fields are parameters, too
                known = [field.name for field in dataclasses.fields(cls)]
                close = difflib.get_close_matches(field, known, 1)
                hint = f"did you mean {close[0]}?" if close else f"{class_name} has {', '.join(known)}"
                raise InputError(f"{place}: {name}: no such field; {hint}")
        for text in gin_mistakes.texts_in(value):
            if isinstance(text, _Macro) and text[1:] not in bindings:
                raise InputError(
                    f"{place}: {name} = {value}: {text[1:]} is not defined; define it by a line {text[1:]} = VALUE, or "
                    "write the value"
                )


def _refuse_unused_macros(params: list[str], bindings: _Bindings) -> None:
    texts = [text for value, _ in bindings.values() for text in gin_mistakes.texts_in(value)]
    used = {text[1:] for text in texts if isinstance(text, _Macro)}
    for param in params:
        for name in _bindings_of_param(param):
            if "." not in name and name not in used:
                raise InputError(f"{_PARAM} {param}: {name} is no field, and no file uses %{name}; {_EXAMPLE}")
