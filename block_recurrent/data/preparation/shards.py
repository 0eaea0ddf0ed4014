"""Pieces of a store that many machines write and one joins.

The input's files are divided into units. A worker tokenises a unit into parts, one after the other, and writes
`<unit>.json` last: a unit without it has not been done. Joining reads the parts in order and writes the very store that
one machine would have written.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from block_recurrent.data.preparation.workers import EncodedGroup, Encoder
from block_recurrent.data.sources.source import Counts, Record, Source
from block_recurrent.data.store import columns
from block_recurrent.data.store.encoded_document import EncodedDocument
from block_recurrent.errors import InputError

FOLDER = ".parts"
PLAN = "plan.json"
_BYTES_A_UNIT = 64 << 20
_BYTES_A_PART = 32 << 20
_RECORDS_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class Unit:
    """Work for one machine.

    Attributes:
        number: place in the order of all units of the split.
        files: of the input, in order.
    """

    number: int
    files: tuple[Record, ...]


def folder_of(store: str, split: str) -> epath.Path:
    """Where the parts of a split lie until they are joined."""
    return epath.Path(store) / FOLDER / split


def divide(files: Sequence[Record]) -> list[Unit]:
    """Units of consecutive files: large files alone, small ones together."""
    units, together, size = [], [], 0
    for file in files:
        if together and size + file.size > _BYTES_A_UNIT:
            units.append(Unit(len(units), tuple(together)))
            together, size = [], 0
        together.append(file)
        size += file.size
    return [*units, Unit(len(units), tuple(together))] if together else units


@dataclasses.dataclass(frozen=True)
class UnitEncoder:
    """Tokenises units; picklable. Doing a unit twice, as distributed engines may, writes the same files twice.

    Attributes:
        encoder: records to documents in tokens.
        split: for which the files are walked through.
        folder: where the parts go, local or `gs://`.
    """

    encoder: Encoder
    split: str
    folder: str

    def __call__(self, unit: Unit) -> int:
        """Tokenises a unit, unless that has been done.

        Args:
            unit: the files.

        Returns:
            The unit's number.
        """
        done = epath.Path(self.folder) / f"{unit.number:06}.json"
        if done.exists():
            return unit.number
        counts, parts = Counts(), []
        for group in self._parts(unit, counts):
            data = _pack(group.documents, self.encoder.dtype)
            name = f"{unit.number:06}-{len(parts):04}.part"
            _write(epath.Path(self.folder) / name, data)
            counts.update(group.counts)
            parts.append({"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size": group.size})
        _write(done, json.dumps({"parts": parts, "counts": dict(counts)}).encode())
        return unit.number

    def _parts(self, unit: Unit, counts: Counts) -> Iterator[EncodedGroup]:
        part = EncodedGroup(0, 0, [], Counts())
        size = 0
        for records in _together(self.encoder.source, unit, self.split, counts):
            group = self.encoder(records)
            part = EncodedGroup(
                part.records + group.records,
                part.size + group.size,
                part.documents + group.documents,
                part.counts + group.counts,
            )
            size += sum(document.tokens.nbytes for document in group.documents)
            if size > _BYTES_A_PART:
                yield part
                part, size = EncodedGroup(0, 0, [], Counts()), 0
        yield part


def _together(source: Source, unit: Unit, split: str, counts: Counts) -> Iterator[list[Record]]:
    records: list[Record] = []
    for file in unit.files:
        for record in source.records(file, split, counts):
            records.append(record)
            if len(records) == _RECORDS_AT_ONCE:
                yield records
                records = []
    if records:
        yield records


def _pack(documents: Sequence[EncodedDocument], dtype: np.dtype) -> bytes:
    """A part's bytes: the documents' numbers, their names, their tokens, as three `.npy` arrays."""
    records = np.array([columns.record_of(document) for document in documents], columns.RECORD)
    names = b"".join(columns.name_bytes(document.name) for document in documents)
    tokens = np.concatenate([document.tokens for document in documents] or [np.empty(0, dtype)])
    file = io.BytesIO()
    for array in (records, np.frombuffer(names, np.uint8), tokens):
        np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _unpack(data: bytes) -> list[EncodedDocument]:
    file = io.BytesIO(data)
    records, names, tokens = (np.load(file, allow_pickle=False) for _ in range(3))
    name_ends, token_ends = np.cumsum(records["name_bytes"]), np.cumsum(records["lengths"])
    documents = []
    for record, name_end, token_end in zip(records, name_ends, token_ends, strict=True):
        name = names[name_end - record["name_bytes"] : name_end].tobytes()
        documents.append(columns.document_of(record, name, tokens[token_end - record["lengths"] : token_end]))
    return documents


def _write(path: epath.Path, data: bytes) -> None:
    """Whole or not at all: object stores write so themselves, on disks a file grows aside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if "://" in path.as_posix():
        path.write_bytes(data)
        return
    aside = path.parent / f".{path.name}.{hashlib.sha256(data).hexdigest()[:8]}"
    aside.write_bytes(data)
    aside.replace(path)


def write_plan(folder: epath.Path, identity: dict[str, Any], units: Sequence[Unit]) -> None:
    """Records what the parts will be of.

    Raises:
        InputError: the folder holds parts of something else.
    """
    plan = {"identity": identity, "units": len(units)}
    try:
        found = json.loads((folder / PLAN).read_text())
    except FileNotFoundError:
        _write(folder / PLAN, json.dumps(plan).encode())
        return
    if found != json.loads(json.dumps(plan)):
        raise InputError(f"{folder} holds parts of another preparation: remove it or choose another folder")


def read_parts(folder: epath.Path, identity: dict[str, Any], skip: int, counts: Counts) -> Iterator[EncodedGroup]:
    """The parts of a split, in order.

    Args:
        folder: where they lie.
        identity: what they must be of.
        skip: parts that have been read already.
        counts: what the units' counts are added to.

    Yields:
        One group a part.

    Raises:
        InputError: parts are missing, damaged, or of another preparation.
    """
    try:
        plan = json.loads((folder / PLAN).read_text())
    except FileNotFoundError:
        raise InputError(f"{folder}: nothing to finish; run `prepare` with --runner first") from None
    if plan["identity"] != json.loads(json.dumps(identity)):
        raise InputError(f"{folder} holds parts of another preparation: remove it or choose another folder")
    units = [_read_unit(folder, number) for number in range(plan["units"])]
    missing = [number for number, unit in enumerate(units) if unit is None]
    if missing:
        raise InputError(f"{folder}: {len(missing)} of {len(units)} units are not done yet; run the pipeline again")
    for unit in units:
        assert unit is not None
        counts.update(unit["counts"])
        for part in unit["parts"][skip:]:
            yield EncodedGroup(1, part["size"], _unpack(_read_part(folder / part["name"], part["sha256"])), Counts())
        skip = max(0, skip - len(unit["parts"]))


def _read_unit(folder: epath.Path, number: int) -> dict[str, Any] | None:
    try:
        return json.loads((folder / f"{number:06}.json").read_text())
    except FileNotFoundError:
        return None


def _read_part(path: epath.Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise InputError(f"{path}: missing or damaged; remove {path.parent} and run the pipeline again")
    return data
