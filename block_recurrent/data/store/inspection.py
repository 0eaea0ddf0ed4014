"""What a person wants to see of a store: its summary, a document's text, how long its documents are."""

import dataclasses

import numpy as np
from etils import epath

from block_recurrent.data.store.token_store import TokenStore, splits_of
from block_recurrent.data.vocabulary import Vocabulary, load_recorded_vocabulary
from block_recurrent.errors import InputError


@dataclasses.dataclass(frozen=True)
class LengthBin:
    """Documents of similar length.

    Attributes:
        low: shortest, in tokens.
        high: one more than the longest.
        documents: how many.
        tokens: of all of them.
    """

    low: int
    high: int
    documents: int
    tokens: int


def open_stores(path: str) -> list[TokenStore]:
    """The store in a folder, or those of all splits below it.

    Args:
        path: what `prepare` wrote, or one split of it.

    Returns:
        Open stores, at least one.

    Raises:
        InputError: there is none, or one is damaged.
    """
    root = epath.Path(path)
    splits = splits_of(root)
    return [TokenStore.open(root / split) for split in splits] if splits else [TokenStore.open(root)]


def describe(store: TokenStore) -> list[tuple[str, str]]:
    """The summary of a store as (what, value), to be shown as a table."""
    about, counts = store.metadata, store.metadata.counts
    rows = [
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


def find_document(store: TokenStore, wanted: str) -> int:
    """The document that a person means.

    Args:
        store: where to look.
        wanted: its number, its name, or the first word of its name (a book's id).

    Returns:
        Index of the document.

    Raises:
        InputError: there is none.
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
            f"token store {store.path}: no document {wanted!r}; give a name, or a number from 0 to {len(store) - 1}"
        )
    return found


def decode_document(
    store: TokenStore, document: int, start: int = 0, stop: int | None = None, vocabulary: Vocabulary | None = None
) -> str:
    """The text of a document, or of a piece of it.

    Args:
        store: where it is.
        document: its index.
        start: first token.
        stop: one past the last token; None means to the end.
        vocabulary: the store's, when the model file is no longer where it was.

    Returns:
        The text that the tokens stand for.

    Raises:
        InputError: there is no such document, or the vocabulary is gone or another one.
    """
    recorded = store.vocabulary
    if vocabulary is None:
        vocabulary = load_recorded_vocabulary(recorded.spec, recorded.fingerprint)
    elif vocabulary.fingerprint != recorded.fingerprint:
        raise InputError(
            f"vocabulary {vocabulary.spec!r} has fingerprint {vocabulary.fingerprint}; token store {store.path} was "
            f"made with {recorded.spec!r}, fingerprint {recorded.fingerprint}"
        )
    return vocabulary.decode(store.read(document, start, 2**62 if stop is None else stop))


def length_histogram(lengths: np.ndarray) -> list[LengthBin]:
    """Documents by length, in bins that double: 0, 1, 2-3, 4-7, ...

    Args:
        lengths: (D,) integers, tokens of each document.

    Returns:
        Bins from the shortest document's to the longest one's; empty without documents.
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
