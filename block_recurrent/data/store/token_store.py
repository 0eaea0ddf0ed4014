"""The token store: the ids of a split's documents, with random access by (document, offset).

A store is a folder with `tokens/` (one zarr array), `documents/` (one `.npy` file per column, and the names) and
`store.json`, which is written last: a folder without it is not a store.
"""

import builtins
import functools
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from block_recurrent.data.store import columns, metadata, token_array
from block_recurrent.data.store.metadata import StoreMetadata
from block_recurrent.errors import InputError
from block_recurrent.progress import ProgressCallback

TOKENS_FOLDER = "tokens"
_HASH_BYTES = 1 << 20


class TokenStore:
    """A finished store, opened for reading by `TokenStore.open`. Safe to use from several threads.

    Attributes:
        part: the part of the split, in words; None for the whole split (see `partial_store.py`).
    """

    part: str | None = None

    def __init__(self, path: epath.Path, described: StoreMetadata):
        self.path = path
        self.metadata = described
        self._array = _open_array(path)
        self._ends = np.cumsum(self.lengths)
        self._starts = self._ends - self.lengths
        if len(self.lengths) != described.counts.documents or self._array.shape[0] != self.lengths.sum():
            raise InputError(f"token store {path}: damaged, the documents' lengths do not match the tokens")

    @classmethod
    def open(cls, path: epath.PathLike) -> "TokenStore":
        """Opens the store of one split.

        Args:
            path: folder of the split, local or `gs://`.

        Returns:
            The store.

        Raises:
            InputError: the store does not exist, is unfinished or is damaged; the message names the file.
        """
        folder = epath.Path(path)
        described = read_metadata(folder)
        _check_sizes(folder, described)
        return cls(folder, described)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the documents' texts, in order, and the vocabulary; equal for equal tokens."""
        return self.metadata.fingerprint

    @property
    def vocabulary(self) -> metadata.VocabularyMetadata:
        """The vocabulary of the tokens."""
        return self.metadata.vocabulary

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """(D,) int64, tokens of each document."""
        return self._column("lengths")

    @functools.cached_property
    def bytes(self) -> np.ndarray:
        """(D,) int64, bytes of each document's text in UTF-8."""
        return self._column("bytes")

    @functools.cached_property
    def characters(self) -> np.ndarray:
        """(D,) int64, Unicode code points of each document's text."""
        return self._column("characters")

    @functools.cached_property
    def words(self) -> np.ndarray:
        """(D,) int64, words of each document's text, separated by white space."""
        return self._column("words")

    @functools.cached_property
    def unknown_tokens(self) -> np.ndarray:
        """(D,) int64, number of each document's tokens with the unknown id."""
        return self._column("unknown_tokens")

    @functools.cached_property
    def first_token_bytes(self) -> np.ndarray:
        """(D,) int32, bytes of text covered by each document's first token, which is never scored."""
        return self._column("first_token_bytes")

    @functools.cached_property
    def names(self) -> columns.Names:
        """The documents' names."""
        text = self._checked_bytes(f"{columns.FOLDER}/{columns.NAMES}")
        return columns.Names(text, self._column(columns.NAME_ENDS))

    def _column(self, column: str) -> np.ndarray:
        return columns.read_column(self._checked_bytes(columns.path_of(column)))

    def _checked_bytes(self, name: str) -> builtins.bytes:
        data = _read(self.path / name)
        if hashlib.sha256(data).hexdigest() != self.metadata.files[name][1]:
            raise _damaged(self.path / name, "its checksum does not match")
        return data

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Returns tokens start, ..., stop - 1 of a document; see `read_many`."""
        return self.read_many([(document, start, stop)])[0]

    def read_many(self, pieces: Iterable[tuple[int, int, int]]) -> list[np.ndarray]:
        """Reads pieces of documents concurrently.

        Args:
            pieces: (document, start, stop) for tokens start, ..., stop - 1, truncated at the document's end.

        Returns:
            One (stop - start,) unsigned array per piece.

        Raises:
            InputError: there is no such document, or that part of the store is damaged.
        """
        pieces = list(pieces)
        futures = [self._array[slice(*self._inside(*piece))].read() for piece in pieces]
        return [self._result(future, document) for future, (document, _, _) in zip(futures, pieces, strict=True)]

    def _inside(self, document: int, start: int, stop: int) -> tuple[int, int]:
        if not 0 <= document < len(self):
            raise InputError(f"token store {self.path}: no document {document}; it holds 0 to {len(self) - 1}")
        first, end = int(self._starts[document]), int(self._ends[document])
        start = min(first + max(start, 0), end)
        return start, max(start, min(first + stop, end))

    def _result(self, future, document: int) -> np.ndarray:
        try:
            return future.result()
        except Exception as error:  # TensorStore's errors for damaged, missing and unreachable files
            reason = token_array.reason_of(error)
            where = f"document {document} of token store {self.path}"
            raise InputError(f"cannot read {where}: {reason}; `verify` names the damaged files") from None

    def verify(self, progress: ProgressCallback | None = None) -> None:
        """Reads every file of the store and compares its checksum.

        Args:
            progress: called with (bytes read, bytes in all).

        Raises:
            InputError: files are missing or damaged; the message names all of them.
        """
        problems, done = [], 0
        total = sum(size for size, _ in self.metadata.files.values())
        for name, (size, digest) in sorted(self.metadata.files.items()):
            try:
                if file_digest(self.path / name) != digest:
                    problems.append(f"{name} is damaged")
            except OSError as error:
                problems.append(f"{name} cannot be read ({error.strerror or error})")
            done += size
            if progress:
                progress(done, total)
        if problems:
            raise InputError(f"token store {self.path}: {'; '.join(problems)}; prepare the store again")


def read_metadata(folder: epath.Path) -> StoreMetadata:
    """Reads a store's `store.json`. Raises an InputError if the folder is not a finished store."""
    try:
        text = (folder / metadata.FILE_NAME).read_text()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(_why_no_store(folder)) from None
    except UnicodeDecodeError:
        text = ""
    return StoreMetadata.from_json(text, str(folder / metadata.FILE_NAME))


def splits_of(root: epath.Path) -> list[str]:
    """Returns the splits with a finished store in a folder."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if (path / metadata.FILE_NAME).exists())


def file_digest(path: epath.Path) -> str:
    """Returns the hex sha256 of a file, which is read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASH_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _why_no_store(folder: epath.Path) -> str:
    if not folder.exists():
        siblings: Sequence[str] = splits_of(folder.parent)
        existing = f"; {folder.parent} holds the splits {', '.join(siblings)}" if siblings else ""
        return f"token store {folder}: no such folder{existing}; `prepare` writes stores"
    if splits := splits_of(folder):
        return f"token store {folder}: it holds the splits {', '.join(splits)}; use the folder of one of them"
    return f"token store {folder}: not a finished token store, {metadata.FILE_NAME} is missing; prepare the store again"


def _check_sizes(folder: epath.Path, described: StoreMetadata) -> None:
    for name, (size, _) in described.files.items():
        try:
            found = (folder / name).stat().length
        except (FileNotFoundError, NotADirectoryError):
            raise _damaged(folder / name, "the file is missing") from None
        if found != size:
            raise _damaged(folder / name, f"it has {found} bytes instead of {size}")


def _open_array(folder: epath.Path):
    try:
        return token_array.open_readable(folder / TOKENS_FOLDER)
    except InputError:
        raise
    except ValueError as error:
        raise _damaged(folder / TOKENS_FOLDER, token_array.reason_of(error)) from None


def _read(path: epath.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror or error})") from None


def _damaged(path: epath.Path, problem: str) -> InputError:
    return InputError(f"token store file {path}: damaged, {problem}; prepare the store again")
