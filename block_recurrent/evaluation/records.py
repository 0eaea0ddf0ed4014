"""Fields that all results of evaluations share, and reading and writing of results, one JSON file each."""

import dataclasses
from typing import Any, ClassVar, Literal, TypeVar

import msgspec
from etils import epath

from block_recurrent.errors import InputError, first_line
from block_recurrent.files import write_whole

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its confidence interval.

    Attributes:
        value: estimate over all documents.
        low: lower end of the interval; None with fewer than two documents.
        high: upper end of the interval; None with fewer than two documents.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Settings of the bootstrap: percentile intervals over documents that are drawn with replacement.

    Attributes:
        replicates: number of draws.
        level: coverage of the interval, such as 0.95.
        seed: seed of the draws.
    """

    replicates: int
    level: float
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that was evaluated.

    Attributes:
        name: short name for tables: the run's folder.
        path: path of the checkpoint or export.
        step: training steps; None if unknown.
        fingerprint: hex SHA-256 of the parameters.
        parameters: number of parameters, including the embedding table.
        config: fields of `ModelConfig`.
        control: what was done to the model, if it is a control of an experiment, such as `random cells`; else None.
    """

    name: str
    path: str
    step: int | None
    fingerprint: str
    parameters: int
    config: dict[str, Any]
    control: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
    """The data of an evaluation.

    Attributes:
        store: folder of the token store.
        source: name of the text source.
        split: name of the split.
        label: name of the data in tables: the user's (`PrepareConfig.corpus`), else that of the source; marks stand-ins
            for the paper's corpora, and parts of a split.
        stand_in: True for data that replaces a corpus of the paper that was never released.
        paper_column: the comparable column of the paper's Table 1; None if there is none.
        fingerprint: hex SHA-256, equal for equal tokens.
        vocabulary: specification of the vocabulary, as in the store.
        vocabulary_fingerprint: hex SHA-256 of the vocabulary's definition.
        documents: documents of the split, or of the part, including those too short to score.
        tokens: tokens of those documents.
        part: the part of the split that was scored, in words; None for the whole split.
    """

    store: str
    source: str
    split: str
    label: str
    stand_in: bool
    paper_column: Literal["PG19 bytes", "PG19 tokens", "arXiv", "GitHub"] | None
    fingerprint: str
    vocabulary: str
    vocabulary_fingerprint: str
    documents: int
    tokens: int
    part: str | None = None

    @property
    def scope(self) -> str:
        """The scored text, for headings: the whole split or the part."""
        return "whole split" if self.part is None else f"partial: {self.part}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """The circumstances of an evaluation.

    Attributes:
        command: words of the command line.
        date: end of the evaluation, ISO 8601, UTC.
        versions: versions of the libraries and of Python.
        devices: number and kind of the devices.
        batch_size: rows of a batch; changes the speed, not the result.
        segment_length: tokens per row and step; changes the speed, not the result.
    """

    command: tuple[str, ...]
    date: str
    versions: dict[str, str]
    devices: str
    batch_size: int
    segment_length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The first fields of every result.

    Attributes:
        data: data of the evaluation.
        provenance: circumstances of the evaluation.
        bootstrap: settings of the intervals.
    """

    FILE: ClassVar[str]

    data: DataSet
    provenance: Provenance
    bootstrap: Bootstrap


_Result = TypeVar("_Result", bound=Result)


def write(result: Result, folder: epath.Path) -> epath.Path:
    """Writes a result to its `FILE` in a folder, whole or not at all, and returns the path."""
    path = folder / result.FILE
    content = {"format_version": FORMAT_VERSION, "kind": type(result).__name__} | msgspec.to_builtins(result)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    return path


def read(kind: type[_Result], folder: epath.Path) -> _Result | None:
    """Reads a result from a folder; returns None if the file does not exist.

    Raises:
        InputError: the file is damaged or has another format version.
    """
    path = folder / kind.FILE
    if not path.exists():
        return None
    try:
        content = msgspec.json.decode(path.read_bytes())
        version = content.pop("format_version")
        if version != FORMAT_VERSION:
            raise InputError(f"{path}: format_version {version!r}; this version of the program reads {FORMAT_VERSION}")
        return msgspec.convert(content, kind, strict=False)
    except (msgspec.MsgspecError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: damaged, not the result of an evaluation ({first_line(error)}); evaluate again"
        ) from None
