"""Experiment files. This is the only module that knows gin: it turns `--gin_file`s into the classes of `config.py`."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gin
from block_recurrent import config as config_module
from block_recurrent.config import DataConfig, MeshConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig
from block_recurrent.config.model import lstm_fields
from block_recurrent.errors import InputError
from gin import config_parser


def parse(files: list[str] | None, params: list[str] | None) -> None:
    """Reads files and overrides into gin.

    Raises:
        InputError: a file is missing or cannot be parsed, names something unknown, or contradicts another file.
    """
    gin.clear_config()
    for root in _gin_roots():
        gin.add_config_file_search_path(str(root))
    files = [str(_find_gin_file(file)) for file in files or []]
    _refuse_contradictions(files)
    try:
        for file in files:
            gin.parse_config_file(file)
        gin.parse_config(params or [])
    except Exception as error:  # gin raises whatever Python raised while it looked at a statement
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError("gin: " + " ".join(lines)) from None


def configured(cls: type[Any]) -> Any:
    """The configuration that the files describe.

    Raises:
        InputError: a field without a default is bound nowhere, or a value is not allowed.
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
        raise InputError(f"{cls.__name__}: {', '.join(required)} not given; bind in a --gin_file or by --gin_param")
    try:
        return gin.get_configurable(cls)(**{name: implied[name] for name in implied.keys() - bound.keys()})
    except InputError as error:
        raise InputError(str(error).splitlines()[0]) from None  # gin adds a line about itself


def configured_run() -> RunConfig:
    """The run that the files describe.

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
    """The fields of a class that the files and overrides bind."""
    return gin.get_bindings(cls)


def operative_config() -> str:
    """What was bound and used, in gin's own format."""
    return gin.operative_config_str()


class _Unresolved(config_parser.ParserDelegate):
    """Keeps references and macros as text: enough to tell whether two files say the same."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return f"@{scoped_configurable_name}{'()' if evaluate else ''}"

    def macro(self, macro_name: str) -> Any:
        return f"%{macro_name}"


def _gin_roots() -> list[Path]:
    """Where experiment files are looked up: the working directory, a checkout, the installed package."""
    package = Path(__file__).parents[1]
    return [Path(), package.parent, package]


def _find_gin_file(file: str) -> Path:
    for root in _gin_roots():
        if (root / file).is_file():
            return root / file
    shipped = sorted({str(path.relative_to(root)) for root in _gin_roots()[1:] for path in root.glob("gin/runs/*.gin")})
    raise InputError(f"--gin_file {file}: no such file; ready to use: {', '.join(shipped) or 'none'}")


def _refuse_contradictions(files: list[str]) -> None:
    """Files lie on orthogonal axes; gin itself would silently let the later one win."""
    seen: dict[str, tuple[Any, str]] = {}
    for file in files:
        for name, (value, where) in _bindings_of(file).items():
            if name in seen and seen[name][0] != value:
                other_value, other_where = seen[name]
                raise InputError(
                    f"--gin_file: {name} = {other_value!r} ({other_where}) and {name} = {value!r} ({where}) contradict "
                    "each other; use one of the files, or decide with --gin_param"
                )
            seen[name] = value, where


def _bindings_of(file: str) -> dict[str, tuple[Any, str]]:
    """What one file binds, with includes; a file overrides what it includes."""
    bindings: dict[str, tuple[Any, str]] = {}
    for statement in _statements(file):
        if isinstance(statement, config_parser.IncludeStatement):
            bindings |= _bindings_of(str(_find_gin_file(statement.filename)))
        elif isinstance(statement, config_parser.BindingStatement):
            # `config.ModelConfig` and `ModelConfig` are the same class, however it was imported.
            selector = statement.selector.rsplit(".", 1)[-1]
            name = ".".join(part for part in (statement.scope, selector, statement.arg_name) if part)
            bindings[name] = statement.value, f"{file}:{statement.location.line_num}"
    return bindings


def _statements(file: str) -> Iterator[Any]:
    with Path(file).open() as lines:
        try:
            yield from config_parser.ConfigParser(lines, _Unresolved())
        except SyntaxError as error:
            raise InputError(f"{file}:{error.lineno}: {error.msg}") from None


for _name, _cls in vars(config_module).items():
    if dataclasses.is_dataclass(_cls) and _cls is not RunConfig:
        gin.external_configurable(_cls, module=config_module.__name__)
