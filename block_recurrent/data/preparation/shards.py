"""Shards of a store that many machines write and one machine joins.

The input's files are divided into units of work. A worker tokenises a unit into shards and writes `<unit>.json` last; a
unit without that file is not done. Joining reads the shards in order and writes the same store, byte for byte, as one
machine would have written.
"""

import dataclasses
import hashlib
import io
import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from block_recurrent import files
from block_recurrent.data.preparation.workers import EncodedGroup, Encoder
from block_recurrent.data.sources.source import Counts, Record, Source
from block_recurrent.data.store import columns
from block_recurrent.data.store.encoded_document import EncodedDocument
from block_recurrent.errors import InputError

FOLDER = ".parts"
PLAN = "plan.json"
_BYTES_PER_UNIT = 64 << 20
_BYTES_PER_SHARD = 32 << 20
_RECORDS_PER_GROUP = 16


@dataclasses.dataclass(frozen=True)
class Unit:
    """Work for one machine.

    Attributes:
        number: position in the order of all units of the split.
        files: files of the input, in order.
    """

    number: int
    files: tuple[Record, ...]


def shard_folder(store: str, split: str) -> epath.Path:
    """Returns the folder of a split's shards."""
    return epath.Path(store) / FOLDER / split


def divide_into_units(inputs: Sequence[Record]) -> list[Unit]:
    """Divides files into units of consecutive files: small files share a unit, a large file has its own."""
    units, current, size = [], [], 0
    for file in inputs:
        if current and size + file.size > _BYTES_PER_UNIT:
            units.append(Unit(len(units), tuple(current)))
            current, size = [], 0
        current.append(file)
        size += file.size
    return [*units, Unit(len(units), tuple(current))] if current else units


@dataclasses.dataclass(frozen=True)
class UnitEncoder:
    """Tokenises units; picklable.

    Distributed engines may run a unit twice, even at the same time: both runs write the same files.

    Attributes:
        encoder: turns records into tokenised documents.
        split: the split to prepare.
        folder: folder of the shards, local or `gs://`.
    """

    encoder: Encoder
    split: str
    folder: str

    def __call__(self, unit: Unit) -> int:
        """Tokenises a unit, unless it is done already.

        Args:
            unit: the files.

        Returns:
            The unit's number.
        """
        done = epath.Path(self.folder) / f"{unit.number:06}.json"
        if done.exists():
            return unit.number
        counts, shards = Counts(), []
        for group in self._shards(unit, counts):
            data = _pack(group.documents, self.encoder.dtype)
            name = f"{unit.number:06}-{len(shards):04}.part"
            _write(epath.Path(self.folder) / name, data)
            counts.update(group.counts)
            shards.append({"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size": group.size})
        _write(done, json.dumps({"parts": shards, "counts": dict(counts)}).encode())
        return unit.number

    def _shards(self, unit: Unit, counts: Counts) -> Iterator[EncodedGroup]:
        shard = EncodedGroup(0, 0, [], Counts())
        size = 0
        for records in _record_groups(self.encoder.source, unit, self.split, counts):
            group = self.encoder(records)
            shard = EncodedGroup(
                shard.records + group.records,
                shard.size + group.size,
                shard.documents + group.documents,
                shard.counts + group.counts,
            )
            size += sum(document.tokens.nbytes for document in group.documents)
            if size > _BYTES_PER_SHARD:
                yield shard
                shard, size = EncodedGroup(0, 0, [], Counts()), 0
        yield shard


def _record_groups(source: Source, unit: Unit, split: str, counts: Counts) -> Iterator[list[Record]]:
    group: list[Record] = []
    for file in unit.files:
        for record in source.records(file, split, counts):
            group.append(record)
            if len(group) == _RECORDS_PER_GROUP:
                yield group
                group = []
    if group:
        yield group


def _pack(documents: Sequence[EncodedDocument], dtype: np.dtype) -> bytes:
    """Returns a shard's bytes: the documents' records, names and tokens as three `.npy` arrays."""
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
    path.parent.mkdir(parents=True, exist_ok=True)
    if files.is_remote(path):
        path.write_bytes(data)  # object stores write an object whole or not at all
    else:
        files.write_whole(path, data, writer=uuid.uuid4().hex[:8])


def write_plan(folder: epath.Path, identity: dict[str, Any], units: Sequence[Unit]) -> None:
    """Records which preparation the shards belong to and how many units it has.

    Raises:
        InputError: the folder holds shards of another preparation.
    """
    plan = {"identity": identity, "units": len(units)}
    try:
        found = json.loads((folder / PLAN).read_text())
    except FileNotFoundError:
        _write(folder / PLAN, json.dumps(plan).encode())
        return
    if found != json.loads(json.dumps(plan)):
        raise _other_preparation(folder)


def read_shards(folder: epath.Path, identity: dict[str, Any], skip: int, counts: Counts) -> Iterator[EncodedGroup]:
    """Reads the shards of a split, in order.

    Args:
        folder: folder of the shards.
        identity: identity of the preparation that they must belong to.
        skip: number of shards that have been read already.
        counts: receives the units' counts.

    Yields:
        One group per shard.

    Raises:
        InputError: shards are missing, damaged, or belong to another preparation.
    """
    try:
        plan = json.loads((folder / PLAN).read_text())
    except FileNotFoundError:
        raise InputError(f"{folder}: nothing to finish; run `prepare` with --runner first") from None
    if plan["identity"] != json.loads(json.dumps(identity)):
        raise _other_preparation(folder)
    units = [_read_unit(folder, number) for number in range(plan["units"])]
    missing = sum(unit is None for unit in units)
    if missing:
        raise InputError(f"{folder}: {missing} of {len(units)} units are not done yet; run the pipeline again")
    for unit in units:
        assert unit is not None
        counts.update(unit["counts"])
        for shard in unit["parts"][skip:]:
            documents = _unpack(_read_shard(folder / shard["name"], shard["sha256"]))
            yield EncodedGroup(1, shard["size"], documents, Counts())
        skip = max(0, skip - len(unit["parts"]))


def _other_preparation(folder: epath.Path) -> InputError:
    return InputError(f"{folder} holds shards of another preparation: remove it or choose another folder")


def _read_unit(folder: epath.Path, number: int) -> dict[str, Any] | None:
    try:
        return json.loads((folder / f"{number:06}.json").read_text())
    except FileNotFoundError:
        return None


def _read_shard(path: epath.Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise InputError(f"{path}: missing or damaged; remove {path.parent} and run the pipeline again")
    return data
