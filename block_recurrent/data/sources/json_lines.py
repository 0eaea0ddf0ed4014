"""JSON lines, plain or gzip: one document per line, in a text field."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from block_recurrent.data.sources.files import join
from block_recurrent.data.sources.folder import FolderSource
from block_recurrent.data.sources.source import Counts, Record, TextDocument
from block_recurrent.data.sources.splits import Splitter
from block_recurrent.data.sources.text import clean_text

ENDINGS = (".jsonl", ".jsonl.gz", ".json.gz", ".ndjson")
NOT_JSON = "lines that are not a JSON object (left out)"
NO_TEXT = "lines without a text in the text field (left out)"
TRUNCATED = "gzip files that end early (read up to there)"
_BYTES_PER_RECORD = 1 << 20


class JsonLines(FolderSource):
    """One document per line of every file.

    Args:
        root: folder, or one file; local or `gs://`.
        splitter: divides the documents if the files' paths do not name splits.
        text_field: name of the field with the text.
        name_field: name of the field with the document's name. With None, and for lines without that field, the name
            is `<file>:<line>`.
        name: name of the source; differs from `jsonl` if another source's text is read as JSON lines.
    """

    name = "jsonl"

    def __init__(
        self,
        root: str,
        splitter: Splitter,
        *,
        text_field: str = "text",
        name_field: str | None = None,
        name: str = "jsonl",
    ):
        self.name = name
        self._text_field = text_field
        self._name_field = name_field
        super().__init__(root, splitter)

    def wanted(self, path: str) -> bool:
        """See `FolderSource.wanted`."""
        return path.endswith(ENDINGS)

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`."""
        return {**super().settings, "text_field": self._text_field, "name_field": self._name_field}

    def records(self, file: Record, split: str, counts: Counts) -> Iterator[Record]:
        """See `Source.records`: consecutive lines, not parsed yet."""
        lines, size, first, number = [], 0, 1, 0
        for number, line in enumerate(self._lines(file, split, counts), start=1):
            lines.append(line)
            size += len(line)
            if size >= _BYTES_PER_RECORD:
                yield Record(file.name, (split, first, lines), size)
                lines, size, first = [], 0, number + 1
        if lines:
            yield Record(file.name, (split, first, lines), size)

    def _lines(self, file: Record, split: str, counts: Counts) -> Iterator[bytes]:
        with join(self.root, file.payload).open("rb") as raw:
            try:
                yield from gzip.GzipFile(fileobj=cast(BinaryIO, raw)) if file.name.endswith(".gz") else raw
            except (EOFError, zlib.error, gzip.BadGzipFile):
                counts[TRUNCATED] += self.belongs(file.name, split)  # once, although every split reads the file

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """See `Source.documents`."""
        split, first, lines = record.payload
        for number, line in enumerate(lines, start=first):
            if not line.strip():
                continue
            place = f"{record.name}:{number}"
            fields = _parse(line)
            name = fields.get(self._name_field) if fields and self._name_field else None
            name = place if name is None else str(name)
            if not self.belongs(name, split):
                continue
            text = fields.get(self._text_field) if fields is not None else None
            if isinstance(text, str):
                yield TextDocument(name, clean_text(text, counts))
            else:
                counts[NOT_JSON if fields is None else NO_TEXT] += 1


def _parse(line: bytes) -> dict[str, Any] | None:
    """Returns the JSON object on a line, or None if there is none."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None
