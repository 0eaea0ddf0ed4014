"""Experiment files: the only module that knows gin. It turns `--gin-file`s into the classes of `config`."""

import dataclasses
import difflib
import inspect
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import gin
from block_recurrent import config as config_package
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
        bindings |= _bindings_in(io.StringIO(param), f"{_PARAM} {param}")
    _refuse_unknown_names(bindings)
    try:
        for file in files:
            gin.parse_config_file(file)
        gin.parse_config(params)
    except Exception as error:  # gin passes on whatever the import or lookup of a statement raised
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError("gin: " + " ".join(lines)) from None
    _places.clear()
    _places.update({name: place for name, (_, place) in bindings.items()})


def configured(cls: type[Any]) -> Any:
    """Returns the instance of a configuration class that the files describe.

    Raises:
        InputError: a field without a default is not bound, or a value is not allowed.
    """
    bound = gin.get_bindings(cls)
    implied = lstm_fields() if cls is ModelConfig and bound.get("layer") == "lstm" else {}
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


def _bindings_of(file: str) -> _Bindings:
    with Path(file).open(encoding="utf-8") as lines:
        return _bindings_in(lines, file)


def _bindings_in(lines: TextIO, source: str) -> _Bindings:
    """Returns the bindings of one file, with its includes; a file overrides the files that it includes."""
    found: _Bindings = {}
    for statement in _statements(lines, source):
        place = _place(source, statement.location.line_num)
        if isinstance(statement, config_parser.IncludeStatement):
            found |= _bindings_of(str(_find_gin_file(statement.filename, f"{place}: include")))
        elif isinstance(statement, config_parser.BindingStatement):
            found[_name_of(statement)] = statement.value, place
    return found


def _name_of(statement: Any) -> str:
    # `config.ModelConfig` and `ModelConfig` are the same class, under whatever name it was imported.
    selector = statement.selector.rpartition(".")[2]
    if selector == "macro":
        return statement.scope
    return ".".join(part for part in (statement.scope, selector, statement.arg_name) if part)


def _statements(lines: TextIO, source: str) -> Iterator[Any]:
    try:
        yield from config_parser.ConfigParser(lines, _Unresolved())
    except SyntaxError as error:
        raise InputError(f"{_place(source, error.lineno)}: gin: {error.msg}") from None


def _place(source: str, line: int | None) -> str:
    return source if source.startswith(_PARAM) else f"{source}:{line}"


def _refuse_unknown_names(bindings: Mapping[str, tuple[Any, str]]) -> None:
    """Refuses unknown fields of our classes and undefined macros; gin reports other unknown names itself."""
    for name, (value, place) in bindings.items():
        class_name, _, field = name.rpartition(".")
        if class_name in _CLASSES:
            cls = _CLASSES[class_name]
            if field not in inspect.signature(cls).parameters:  # removed fields are parameters, too
                known = [field.name for field in dataclasses.fields(cls)]
                close = difflib.get_close_matches(field, known, 1)
                hint = f"did you mean {close[0]}?" if close else f"{class_name} has {', '.join(known)}"
                raise InputError(f"{place}: {name}: no such field; {hint}")
        if isinstance(value, _Macro) and value[1:] not in bindings:
            raise InputError(f"{place}: {name} = {value}: {value[1:]} is not defined")
