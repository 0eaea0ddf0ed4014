"""Parquet files of results. This is the only module that imports pyarrow."""

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from etils import epath
from pyarrow import parquet

from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.evaluation.token_losses import TokenLosses, scored_starts
from block_recurrent.files import PARTIAL

_ROWS_AT_ONCE = 1 << 20
_TOKENS = "tokens.parquet"
_TOKEN_SCHEMA = [("document", pa.int32()), ("position", pa.int32()), ("token", pa.int32()), ("nats", pa.float32())]


def write_table(path: epath.Path, columns: Mapping[str, np.ndarray | list[str]]) -> None:
    """Writes columns of equal length to a Parquet file, which appears whole or not at all."""
    with _replacing(path) as file:
        parquet.write_table(pa.table(dict(columns)), file, compression="zstd")


def write_tokens(folder: epath.Path, store: TokenStore, losses: TokenLosses, identity: str) -> None:
    """Writes `tokens.parquet`, one row per scored token, sorted by document and position.

    Args:
        folder: output folder.
        store: the split.
        losses: token losses of the split.
        identity: everything that determines the losses, as text; `read_tokens` compares it.
    """
    schema = pa.schema(_TOKEN_SCHEMA, metadata={"identity": identity})
    with _replacing(folder / _TOKENS) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in range(0, len(losses.values), _ROWS_AT_ONCE):
            columns = _token_columns(store, losses, start, min(start + _ROWS_AT_ONCE, len(losses.values)))
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))


def read_tokens(folder: epath.Path, store: TokenStore, identity: str) -> TokenLosses | None:
    """Returns the token losses of `tokens.parquet`; None if the file is missing, damaged or of another identity."""
    path = folder / _TOKENS
    if not path.exists():
        return None
    with path.open("rb") as file:
        try:
            table = parquet.ParquetFile(file)
            if (table.schema_arrow.metadata or {}).get(b"identity") != identity.encode():
                return None
            values = table.read(["nats"])["nats"].to_numpy()
        except pa.ArrowException:
            return None  # damaged: the caller scores again
    starts = scored_starts(store.lengths)
    return TokenLosses(values, starts) if len(values) == starts[-1] else None


@contextlib.contextmanager
def _replacing(path: epath.Path) -> Iterator[pa.NativeFile]:
    """Opens a file that replaces `path` on success; unlike `files.write_whole` it never holds all of the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}{PARTIAL}")
    try:
        with partial.open("wb") as file, pa.PythonFile(file, "w") as sink:
            yield sink
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _token_columns(store: TokenStore, losses: TokenLosses, start: int, stop: int) -> list[np.ndarray]:
    """Returns the columns of rows `start` to `stop` - 1 of the file."""
    rows = np.arange(start, stop)
    document = np.searchsorted(losses.starts, rows, side="right") - 1
    position = rows - losses.starts[document] + 1
    first, count = np.unique(document, return_counts=True)
    begins = position[np.cumsum(count) - count]
    pieces = zip(first.tolist(), begins.tolist(), (begins + count).tolist(), strict=True)
    token = np.concatenate(store.read_many(pieces))
    return [document.astype(np.int32), position.astype(np.int32), token.astype(np.int32), losses.values[start:stop]]
