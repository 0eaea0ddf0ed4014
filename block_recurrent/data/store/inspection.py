"""Inspection of stores: summary, text of a document, histogram of document lengths."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from etils import epath

from block_recurrent.data.recorded_vocabulary import load_recorded_vocabulary
from block_recurrent.data.store.token_store import TokenStore, splits_of
from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.errors import InputError


@dataclasses.dataclass(frozen=True)
class LengthBin:
    """Documents of similar length.

    Attributes:
        low: smallest length, in tokens.
        high: largest length plus one.
        documents: number of documents.
        tokens: tokens of all of them.
    """

    low: int
    high: int
    documents: int
    tokens: int


def open_stores(path: str) -> list[TokenStore]:
    """Opens the store of a split, or the stores of all splits in a folder.

    Args:
        path: a folder that `prepare` wrote, or the folder of one of its splits.

    Returns:
        Open stores, at least one.

    Raises:
        InputError: there is no store, or one is damaged.
    """
    root = epath.Path(path)
    splits = splits_of(root)
    return [TokenStore.open(root / split) for split in splits] if splits else [TokenStore.open(root)]


def describe(store: TokenStore) -> list[tuple[str, str]]:
    """Returns the summary of a store as rows (name, value) of a table."""
    about, counts = store.metadata, store.metadata.counts
    rows = [
        ("corpus", about.name),
        ("source", f"{about.source}, split {about.split}"),
        *((key.replace("_", " "), str(value)) for key, value in sorted(about.settings.items())),
        ("vocabulary", f"{about.vocabulary.spec} (table of {about.vocabulary.table_size:,} rows)"),
        ("vocabulary fingerprint", about.vocabulary.fingerprint),
        ("fingerprint", about.fingerprint),
        ("documents", f"{counts.documents:,}"),
        ("tokens", f"{counts.tokens:,}"),
        ("bytes", f"{counts.bytes:,}"),
        ("characters", f"{counts.characters:,}"),
        ("words", f"{counts.words:,}"),
        ("longest document", f"{counts.longest_document:,} tokens"),
        ("median document", f"{counts.median_document:,.0f} tokens"),
        ("unknown tokens", f"{counts.unknown_tokens:,} ({counts.unknown_tokens / max(1, counts.tokens):.3%})"),
        ("bytes per token", f"{counts.bytes / max(1, counts.tokens):.3f}"),
        ("size on disk", f"{sum(size for size, _ in about.files.values()):,} bytes"),
    ]
    return rows + [(reason, f"{count:,}") for reason, count in about.left_out.items()]


def document_lines(store: TokenStore) -> Iterator[str]:
    """Yields a line for each document: its number in the split, tokens, bytes and name, separated by tabs.

    `find_document` accepts the number and the name.
    """
    sizes = zip(store.lengths.tolist(), store.bytes.tolist(), store.names, strict=True)
    for document, (tokens, size, name) in enumerate(sizes):
        yield f"{document}\t{tokens}\t{size}\t{name}\n"


def find_document(store: TokenStore, wanted: str) -> int:
    """Finds a document by its name, the first word of its name, or its number.

    Args:
        store: the store.
        wanted: name, first word of the name (a book's id), or number of the document.

    Returns:
        Index of the document.

    Raises:
        InputError: there is no such document.
    """
    exact, by_first_word = None, None
    for document, name in enumerate(store.names):
        if name == wanted:
            exact = document
            break
        if by_first_word is None and name.split(" ", 1)[0] == wanted:
            by_first_word = document
    found = exact if exact is not None else by_first_word
    if found is None and wanted.isdecimal() and int(wanted) < len(store):
        found = int(wanted)
    if found is None:
        raise InputError(
            f"token store {store.path}: no document {wanted!r}; use a name, or a number from 0 to {len(store) - 1}"
        )
    return found


def decode_document(
    store: TokenStore, document: int, start: int = 0, stop: int | None = None, vocabulary: Vocabulary | None = None
) -> str:
    """Decodes a document, or a range of its tokens.

    Args:
        store: the store.
        document: index of the document.
        start: first token.
        stop: one past the last token; None means to the end.
        vocabulary: the store's vocabulary; None loads it.

    Returns:
        The text of the tokens.

    Raises:
        InputError: there is no such document, or the vocabulary cannot be read or is not the store's.
    """
    recorded = store.vocabulary
    if vocabulary is None:
        vocabulary = load_recorded_vocabulary(recorded.spec, recorded.fingerprint, folders=[store.path])
    elif vocabulary.fingerprint != recorded.fingerprint:
        raise InputError(
            f"vocabulary {vocabulary.spec!r} has fingerprint {vocabulary.fingerprint}; token store {store.path} was "
            f"created with {recorded.spec!r}, fingerprint {recorded.fingerprint}"
        )
    return vocabulary.decode(store.read(document, start, 2**62 if stop is None else stop))


def length_histogram(lengths: np.ndarray) -> list[LengthBin]:
    """Returns a histogram of document lengths in bins 0, 1, 2-3, 4-7, ..., each twice as wide as the previous one.

    Args:
        lengths: (D,) integers, tokens of each document.

    Returns:
        Bins from that of the shortest document to that of the longest; empty without documents.
    """
    if not len(lengths):
        return []
    powers = np.where(lengths > 0, np.floor(np.log2(np.maximum(lengths, 1))).astype(np.int64) + 1, 0)
    documents = np.bincount(powers)
    tokens = np.bincount(powers, weights=lengths).astype(np.int64)
    return [
        LengthBin(2**power // 2, 2**power, int(documents[power]), int(tokens[power]))
        for power in range(int(powers.min()), int(powers.max()) + 1)
    ]
