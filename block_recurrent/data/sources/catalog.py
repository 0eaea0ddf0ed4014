"""The catalog of text sources by name."""

import dataclasses
from collections.abc import Callable

from etils import epath

from block_recurrent.config import PrepareConfig
from block_recurrent.data.sources.arxiv import Arxiv
from block_recurrent.data.sources.github import Github
from block_recurrent.data.sources.json_lines import JsonLines, holds_json_lines
from block_recurrent.data.sources.pg19 import Pg19
from block_recurrent.data.sources.python_stdlib import PythonStdlib
from block_recurrent.data.sources.source import Source
from block_recurrent.data.sources.splits import Splitter
from block_recurrent.data.sources.stray import stray_reason
from block_recurrent.data.sources.synthetic import SyntheticRecall
from block_recurrent.data.sources.text_folder import TextFolder
from block_recurrent.data.sources.tfds import Pg19Tfds
from block_recurrent.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """One entry of the catalog.

    Attributes:
        summary: description of a document.
        input: description of `PrepareConfig.input`; empty for a source without input.
        input_needed: True if a source with input has no default for it.
        make: creates the source of a configuration.
        tasks: names of seqio tasks with the same documents; see `data/seqio_tasks.py`.
    """

    summary: str
    input: str = ""
    input_needed: bool = True
    make: Callable[[PrepareConfig], Source]
    tasks: tuple[str, ...] = ()


def _splitter(config: PrepareConfig) -> Splitter:
    return Splitter(config.validation_percent, config.test_percent)


def _json_lines(config: PrepareConfig) -> Source:
    names = {"text_field": config.text_field, "name_field": config.name_field, "name": config.source}
    return JsonLines(_input(config), _splitter(config), **names)


def _holds_json_lines(config: PrepareConfig) -> bool:
    path = epath.Path(_input(config))
    names = [path.name, *(entry.name for entry in path.iterdir())] if path.is_dir() else [path.name]
    return any(holds_json_lines(name) and stray_reason(name) is None for name in names)


def _arxiv(config: PrepareConfig) -> Source:
    return _json_lines(config) if _holds_json_lines(config) else Arxiv(_input(config), _splitter(config))


def _github(config: PrepareConfig) -> Source:
    if _holds_json_lines(config):
        return _json_lines(config)
    options = {"extensions": config.extensions, "depth": config.repository_depth}
    return Github(_input(config), _splitter(config), **options)


def _text_folder(config: PrepareConfig) -> Source:
    return TextFolder(_input(config), _splitter(config), config.extensions or (".txt",))


def _input(config: PrepareConfig) -> str:
    assert config.input is not None  # checked by `load_source`
    return config.input


SOURCES: dict[str, SourceEntry] = {
    "python_stdlib": SourceEntry(
        summary="one module of this Python's standard library, of at least 8 KB",
        make=lambda config: PythonStdlib(),
        tasks=("python_stdlib",),
    ),
    "pg19": SourceEntry(
        summary="one book of PG19",
        input="a copy of the public bucket: {train,validation,test}/<id>.txt and metadata.csv",
        make=lambda config: Pg19(_input(config)),
        tasks=("pg19_raw_bytes", "pg19_raw_tokens"),
    ),
    "pg19_tfds": SourceEntry(
        summary="one book of PG19, through TensorFlow Datasets (needs the extra `data`)",
        input="TFDS's data folder, if it is not the default",
        input_needed=False,
        make=lambda config: Pg19Tfds(config.input),
        tasks=("pg19_bytes", "pg19_tokens"),
    ),
    "arxiv": SourceEntry(
        summary="one paper's LaTeX, the main file with its includes in place",
        input="arXiv's bulk tars, a folder with their unpacked files, or JSON lines",
        make=_arxiv,
        tasks=("arxiv",),
    ),
    "github": SourceEntry(
        summary="one repository, its source files in path order",
        input="a folder of repositories, or JSON lines",
        make=_github,
        tasks=("github",),
    ),
    "text_folder": SourceEntry(
        summary="one text file with an ending of PrepareConfig.extensions",
        input="a folder",
        make=_text_folder,
        tasks=("text_folder",),
    ),
    "jsonl": SourceEntry(
        summary="one line with a text field",
        input="a folder or a file of JSON lines, plain or compressed (gzip, bzip2, xz, Zstandard)",
        make=_json_lines,
        tasks=("jsonl",),
    ),
    "synthetic_recall": SourceEntry(
        summary="one synthetic text that defines facts at the beginning and repeats them at the end",
        make=lambda config: SyntheticRecall(),
        tasks=("synthetic_recall",),
    ),
}


def register_source(name: str, entry: SourceEntry) -> None:
    """Adds a source of a module outside the package (docs/extending.md); `prepare` takes it after `--import`.

    Args:
        name: value of `PrepareConfig.source`, and `Source.name`.
        entry: the source. Its class must be at the top level of a module, because workers import it from there.

    Raises:
        InputError: there is a source of this name already.
    """
    if name in SOURCES and SOURCES[name].make is not entry.make:
        raise InputError(f"source {name!r}: there is a source of this name already; choose another one")
    SOURCES[name] = entry


def load_source(config: PrepareConfig) -> Source:
    """Creates the source of a configuration.

    Args:
        config: `source` is the name; the other fields configure it.

    Returns:
        The source.

    Raises:
        InputError: there is no such source, or its input does not exist.
    """
    entry = SOURCES.get(config.source)
    if entry is None:
        raise InputError(f"PrepareConfig.source = {config.source!r}: must be one of {', '.join(sorted(SOURCES))}")
    if entry.input_needed and entry.input and config.input is None:
        raise InputError(f"PrepareConfig.input = None: source {config.source} needs {entry.input}")
    if not entry.input and config.input is not None:
        raise InputError(f"PrepareConfig.input = {config.input!r}: source {config.source} reads no input; leave it out")
    return entry.make(config)
