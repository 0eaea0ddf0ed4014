"""JSON lines, plain or compressed: one document per line, in a text field."""

import io
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from block_recurrent.data.sources import compression
from block_recurrent.data.sources.files import join
from block_recurrent.data.sources.folder import FolderSource
from block_recurrent.data.sources.source import Counts, Record, TextDocument
from block_recurrent.data.sources.splits import Splitter
from block_recurrent.data.sources.text import BYTE_ORDER_MARK, UNDECODABLE, clean_text

# A plain `.json` file is rarely JSON lines; a compressed one in a data set is.
ENDINGS = (
    *(".jsonl", ".ndjson"),
    *(kind + ending for kind in (".jsonl", ".ndjson", ".json") for ending in compression.ENDINGS),
)
NOT_JSON = "lines that are not a JSON object (left out)"
NO_TEXT = "lines without a text in the text field (left out)"
TRUNCATED = "compressed files that end early or are damaged (read up to there)"
ARRAY = "files that hold one JSON array instead of JSON lines (left out; `jq -c '.[]' FILE` converts them)"
_BYTES_PER_RECORD = 1 << 20
_ARRAY_START = re.compile(rb"\[\s*(?:[{\[\"]|$)")


def holds_json_lines(name: str) -> bool:
    """Returns whether a file's name ends like JSON lines, in upper or lower case."""
    return name.lower().endswith(ENDINGS)


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
    rules_version = 2  # 2: every compression; repairs undecodable bytes; leaves out arrays, stray and outside files

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
        return holds_json_lines(path)

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
            lines = compression.decompressed(cast(BinaryIO, raw))
            try:
                if _is_array(lines):
                    counts[ARRAY] += self.belongs(file.name, split)  # once, although every split reads the file
                else:
                    yield from lines
            except compression.DamagedError:
                counts[TRUNCATED] += self.belongs(file.name, split)

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """See `Source.documents`."""
        split, first, lines = record.payload
        for number, line in enumerate(lines, start=first):
            if not line.strip():
                continue
            place = f"{record.name}:{number}"
            fields, repaired = _parse(line)
            name = fields.get(self._name_field) if fields and self._name_field else None
            name = place if name is None else str(name)
            if not self.belongs(name, split):
                continue
            text = fields.get(self._text_field) if fields is not None else None
            if isinstance(text, str):
                counts[UNDECODABLE] += repaired
                yield TextDocument(name, clean_text(text, counts))
            else:
                counts[NOT_JSON if fields is None else NO_TEXT] += 1


def _parse(line: bytes) -> tuple[dict[str, Any] | None, bool]:
    """Returns the JSON object on a line, or None if there is none, and whether undecodable bytes were replaced."""
    text = line.decode("utf-8", "replace").removeprefix(BYTE_ORDER_MARK)
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None, False
    return fields if isinstance(fields, dict) else None, "\ufffd" in text and not _is_utf8(line)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_array(lines: io.BufferedReader) -> bool:
    """Returns whether a file is one JSON array, on one line or with one element per line, judged by its beginning."""
    first, _, rest = lines.peek().removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not _ARRAY_START.match(first):
        return False
    return not rest.strip() or first.rstrip() == b"[" or first.rstrip().endswith(b",")
