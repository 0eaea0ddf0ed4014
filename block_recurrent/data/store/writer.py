"""Writes a token store document by document, with bounded memory; an interrupted run can be continued.

The store is built in a work folder, which the caller renames at the end. Each full shard of tokens is written to disk.
`progress.json` then records the last checkpoint from which the files on disk suffice to continue.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from block_recurrent import files
from block_recurrent.data.store import columns, metadata, token_array
from block_recurrent.data.store.encoded_document import EncodedDocument
from block_recurrent.data.store.metadata import StoreCounts, StoreMetadata, VocabularyMetadata
from block_recurrent.data.store.token_store import TOKENS_FOLDER, file_digest

_PROGRESS, _JOURNAL = "progress.json", "documents.journal"


class StoreWriter:
    """Adds documents to an unfinished store.

    Args:
        folder: local work folder. The files of an interrupted run are continued if its identity is equal, else deleted.
        identity: JSON that distinguishes preparations; see `metadata.identity`.
        dtype: unsigned type of the tokens.
        shard: tokens per file, a multiple of the array's chunk; runs are resumed at multiples of it.

    Attributes:
        resumed: the state of the last recovered `checkpoint`, or None if the store was started from the beginning.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], dtype: np.dtype, shard: int = token_array.SHARD):
        self._folder = folder
        self._identity = dict(identity)
        self._shard = shard
        self._names_path = folder / columns.FOLDER / columns.NAMES
        self._buffer = np.empty(shard, dtype)
        self._checkpoint: dict[str, Any] | None = None
        progress = self._read_progress()
        try:
            self._continue(progress or {})
        except (KeyError, OSError, ValueError):  # no files, or not enough of them to continue
            self._start(dtype)
            progress = None
        self.resumed: Any = progress and progress["state"]

    def _read_progress(self) -> dict[str, Any] | None:
        try:
            progress = json.loads((self._folder / _PROGRESS).read_text())
        except (OSError, ValueError):
            return None
        return progress if progress.get("identity") == self._identity else None

    def _start(self, dtype: np.dtype) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._names_path.parent.mkdir(parents=True)
        self._array = token_array.create(epath.Path(self._folder / TOKENS_FOLDER), dtype, self._shard)
        self._documents = self._tokens = self._flushed = self._name_bytes = 0
        self._open_journal("wb")

    def _continue(self, progress: Mapping[str, Any]) -> None:
        self._documents, self._tokens = progress["documents"], progress["tokens"]
        self._name_bytes = progress["name_bytes"]
        self._array = token_array.open_writable(epath.Path(self._folder / TOKENS_FOLDER))
        self._flushed = self._tokens - self._tokens % self._shard
        rest = self._array[self._flushed : self._tokens].read().result()
        self._buffer[: len(rest)] = rest
        os.truncate(self._folder / _JOURNAL, self._documents * columns.RECORD.itemsize)
        os.truncate(self._names_path, self._name_bytes)
        self._open_journal("ab")

    def _open_journal(self, mode: str) -> None:
        self._journal = (self._folder / _JOURNAL).open(mode)
        self._names = self._names_path.open(mode)

    def add(self, document: EncodedDocument) -> None:
        """Appends a document; writes a shard to disk when it is full."""
        name = columns.name_bytes(document.name)
        self._journal.write(columns.record_of(document).tobytes())
        self._names.write(name)
        self._documents += 1
        self._name_bytes += len(name)
        self._append(document.tokens)

    def _append(self, tokens: np.ndarray) -> None:
        start = 0
        while start < len(tokens):
            used = self._tokens - self._flushed
            piece = tokens[start : start + self._shard - used]
            self._buffer[used : used + len(piece)] = piece
            self._tokens += len(piece)
            start += len(piece)
            if self._tokens - self._flushed == self._shard:
                self._flush()

    def _flush(self) -> None:
        if self._tokens == self._flushed:
            return
        # Never shrink the array here: after a restart, later tokens are written again with the same values.
        self._array = token_array.resize(self._array, max(self._tokens, self._array.shape[0]))
        token_array.write(self._array, self._flushed, self._buffer[: self._tokens - self._flushed])
        self._flushed = self._tokens
        if self._checkpoint:
            self._write_progress(self._checkpoint)

    def _write_progress(self, checkpoint: Mapping[str, Any]) -> None:
        for file in (self._journal, self._names):
            file.flush()
            os.fsync(file.fileno())
        files.write_whole(self._folder / _PROGRESS, json.dumps({"identity": self._identity, **checkpoint}))

    def checkpoint(self, state: Any) -> None:
        """Marks a position from which a later run can continue.

        Args:
            state: the caller's state as JSON; recovered once all documents added so far are on disk.
        """
        numbers = {"documents": self._documents, "tokens": self._tokens, "name_bytes": self._name_bytes}
        self._checkpoint = {**numbers, "state": state}

    def records(self) -> np.ndarray:
        """Returns the records of all documents so far, a memory map of (D,) `columns.RECORD`."""
        self._journal.flush()
        if not self._documents:
            return np.empty(0, columns.RECORD)
        return np.memmap(self._folder / _JOURNAL, columns.RECORD, "r")

    def name_digests(self) -> set[bytes]:
        """Returns short digests of all names so far, which detect duplicates after a restart."""
        self._names.flush()
        found, start = set(), 0
        text = self._names_path.read_bytes()
        for size in self.records()["name_bytes"].tolist():
            found.add(name_digest(text[start : start + size]))
            start += size
        return found

    def finish(
        self, vocabulary: VocabularyMetadata, left_out: Mapping[str, int], corpus: str | None = None
    ) -> StoreMetadata:
        """Writes the last shard, the columns and `store.json`, which makes the folder a store.

        Args:
            vocabulary: the vocabulary of the tokens.
            left_out: numbers of omissions and repairs by reason.
            corpus: name that the user gave to the text.

        Returns:
            The metadata in `store.json`.
        """
        self._flush()
        self._array = token_array.resize(self._array, self._tokens)
        records = self.records()
        self._names.close()
        columns.write_columns(epath.Path(self._folder), records)
        described = StoreMetadata(
            source=self._identity["source"],
            split=self._identity["split"],
            settings=self._identity["settings"],
            signature=self._identity["signature"],
            content_fingerprint=hashlib.sha256(records["digest"].tobytes()).hexdigest(),
            counts=_counts(records),
            left_out=dict(sorted(left_out.items())),
            vocabulary=vocabulary,
            token_dtype=self._buffer.dtype.name,
            files=self._files(),
            corpus=corpus,
        )
        self._journal.close()
        for left in (self._folder / _JOURNAL, self._folder / _PROGRESS, files.partial_path(self._folder / _PROGRESS)):
            left.unlink(missing_ok=True)
        files.write_whole(self._folder / metadata.FILE_NAME, described.to_json())
        return described

    def _files(self) -> dict[str, tuple[int, str]]:
        found = {}
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            if path.is_file() and "/" in name:  # files outside the subfolders are the writer's own
                found[name] = (path.stat().st_size, file_digest(epath.Path(path)))
        return found

    def close(self) -> None:
        """Closes the files and leaves the folder for a later run."""
        self._journal.close()
        self._names.close()


def name_digest(name: bytes) -> bytes:
    """Returns an eight-byte digest of a name, so that the set of millions of names stays small."""
    return hashlib.sha256(name).digest()[:8]


def _counts(records: np.ndarray) -> StoreCounts:
    lengths = records["lengths"]
    return StoreCounts(
        documents=len(records),
        tokens=int(lengths.sum()),
        bytes=int(records["bytes"].sum()),
        characters=int(records["characters"].sum()),
        words=int(records["words"].sum()),
        unknown_tokens=int(records["unknown_tokens"].sum()),
        longest_document=int(lengths.max(initial=0)),
        median_document=float(np.median(lengths)) if len(lengths) else 0.0,
    )
