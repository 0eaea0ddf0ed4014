"""What every result of an evaluation has, and how results are written and read: one JSON file each."""

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
        value: of the whole data.
        low: lower end of the interval; None with fewer than two documents.
        high: upper end, likewise.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How intervals were made: documents are drawn with replacement, sums taken anew, percentiles kept.

    Attributes:
        replicates: how many draws.
        level: coverage of the interval, such as 0.95.
        seed: of the draws.
    """

    replicates: int
    level: float
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that was evaluated.

    Attributes:
        name: short, for tables: the run's folder.
        path: the checkpoint.
        step: training steps taken; None where that is not known.
        fingerprint: hex sha256 over the parameters.
        parameters: how many numbers the parameters hold, the embedding table included.
        config: fields of `ModelConfig`.
    """

    name: str
    path: str
    step: int | None
    fingerprint: str
    parameters: int
    config: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
    """What it was evaluated on.

    Attributes:
        store: folder of the token store.
        source: name of the text source.
        split: which part of it.
        label: how to name the data in a table; a stand-in for a corpus of the paper says so.
        stand_in: True for data that stands in for a corpus which the paper used and nobody else has.
        paper_column: the column of the paper's Table 1 that this data may be compared with; None if there is none.
        fingerprint: hex sha256, equal for equal tokens.
        vocabulary: how the store names its vocabulary.
        vocabulary_fingerprint: hex sha256 of what defines the ids.
        documents: of the split, too short ones included.
        tokens: of those documents.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a result came about.

    Attributes:
        command: the command line's words.
        date: when it was finished, ISO 8601, UTC.
        versions: of the libraries, and of Python.
        devices: number and kind of the devices.
        batch_size: documents read side by side.
        segment_length: tokens of a row and step. Like the batch, it changes the speed and not the result.
    """

    command: tuple[str, ...]
    date: str
    versions: dict[str, str]
    devices: str
    batch_size: int
    segment_length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What every file begins with.

    Attributes:
        data: what was read.
        provenance: how.
        bootstrap: how its intervals were made.
    """

    FILE: ClassVar[str]

    data: DataSet
    provenance: Provenance
    bootstrap: Bootstrap


_Result = TypeVar("_Result", bound=Result)


def write(result: Result, folder: epath.Path) -> epath.Path:
    """Writes a result into a folder, under its `FILE` name, whole or not at all; gives the path."""
    path = folder / result.FILE
    content = {"format_version": FORMAT_VERSION, "kind": type(result).__name__} | msgspec.to_builtins(result)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    return path


def read(kind: type[_Result], folder: epath.Path) -> _Result | None:
    """Reads a result from a folder; None if there is none.

    Raises:
        InputError: the file is damaged, or of another version of the format.
    """
    path = folder / kind.FILE
    if not path.exists():
        return None
    try:
        content = msgspec.json.decode(path.read_bytes())
        version = content.pop("format_version")
        if version != FORMAT_VERSION:
            raise InputError(f"{path}: format version {version!r}; this program reads version {FORMAT_VERSION}")
        return msgspec.convert(content, kind, strict=False)
    except (msgspec.MsgspecError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: damaged, not the result of an evaluation ({first_line(error)}); evaluate again"
        ) from None
