"""The columns of a store: one number per document each, and the documents' names."""

import io
from collections.abc import Iterator

import numpy as np
from etils import epath

from block_recurrent.data.store.encoded_document import EncodedDocument

# The writer appends one such record per document to its journal and writes the columns at the end.
RECORD = np.dtype(
    [
        ("lengths", "<i8"),
        ("bytes", "<i8"),
        ("characters", "<i8"),
        ("words", "<i8"),
        ("unknown_tokens", "<i8"),
        ("first_token_bytes", "<i4"),
        ("name_bytes", "<i4"),
        ("digest", "u1", (32,)),
    ]
)
COLUMNS = ("lengths", "bytes", "characters", "words", "unknown_tokens", "first_token_bytes")
NAMES, NAME_ENDS = "names.utf8", "name_ends"
FOLDER = "documents"


def name_bytes(name: str) -> bytes:
    """Returns a name's stored bytes; file names may contain bytes that are not UTF-8."""
    return name.encode("utf-8", "backslashreplace")


def record_of(document: EncodedDocument) -> np.ndarray:
    """Returns a document's numbers as one `RECORD`."""
    record = np.zeros((), RECORD)
    record["lengths"], record["bytes"] = len(document.tokens), document.size
    for field in ("characters", "words", "unknown_tokens", "first_token_bytes"):
        record[field] = getattr(document, field)
    record["name_bytes"] = len(name_bytes(document.name))
    record["digest"] = np.frombuffer(document.digest, np.uint8)
    return record


def document_of(record: np.void, name: bytes, tokens: np.ndarray) -> EncodedDocument:
    """Returns the document of a record; the inverse of `record_of`."""
    return EncodedDocument(
        name=name.decode("utf-8", "replace"),
        tokens=tokens,
        size=int(record["bytes"]),
        characters=int(record["characters"]),
        words=int(record["words"]),
        unknown_tokens=int(record["unknown_tokens"]),
        first_token_bytes=int(record["first_token_bytes"]),
        digest=record["digest"].tobytes(),
    )


def path_of(column: str) -> str:
    """Returns the path of a column's file, relative to the store."""
    return f"{FOLDER}/{column}.npy"


def write_columns(store: epath.Path, records: np.ndarray) -> None:
    """Writes one `.npy` file per column.

    Args:
        store: folder of the store.
        records: (D,) array of `RECORD`, usually a memory map, so that millions of documents need little memory.
    """
    for column in COLUMNS:
        _save(store / path_of(column), np.ascontiguousarray(records[column]))
    _save(store / path_of(NAME_ENDS), np.cumsum(records["name_bytes"], dtype=np.int64))


def _save(path: epath.Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def read_column(data: bytes) -> np.ndarray:
    """Returns the array of a column's file. Raises a ValueError if the file has none."""
    array = np.load(io.BytesIO(data), allow_pickle=False)
    array.flags.writeable = False
    return array


class Names:
    """A sequence of the documents' names that does not keep a Python object per name.

    Args:
        text: the concatenated names in UTF-8.
        ends: (D,) int64, end of each name in `text`.
    """

    def __init__(self, text: bytes, ends: np.ndarray):
        self._text = text
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        return (self[document] for document in range(len(self)))

    def __getitem__(self, document: int) -> str:
        document = range(len(self))[document]
        start = self._ends[document - 1] if document else 0
        return self._text[start : self._ends[document]].decode("utf-8", "replace")

    def find(self, name: str) -> int | None:
        """Returns the first document with a name, or None."""
        return next((document for document, found in enumerate(self) if found == name), None)
