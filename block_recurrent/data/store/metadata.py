"""Metadata of a token store: the contents of its `store.json`."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from block_recurrent.errors import InputError

FILE_NAME = "store.json"
FORMAT_VERSION = 1
RULES_VERSION = "rules_version"  # key in `StoreMetadata.settings`
# The published corpus that a source is made for. The source reads other text of the same format too.
_PUBLISHED = {"pg19": "PG19", "pg19_tfds": "PG19", "arxiv": "arXiv", "github": "GitHub"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreCounts:
    """Totals over a store's documents.

    Attributes:
        documents: number of documents, including those too short to read.
        tokens: tokens of all documents.
        bytes: bytes of their texts in UTF-8.
        characters: Unicode code points of their texts.
        words: words of their texts, separated by white space.
        unknown_tokens: tokens with the vocabulary's unknown id.
        longest_document: length of the longest document in tokens.
        median_document: median length in tokens.
    """

    documents: int
    tokens: int
    bytes: int
    characters: int
    words: int
    unknown_tokens: int
    longest_document: int
    median_document: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyMetadata:
    """The vocabulary of a store's tokens.

    Attributes:
        spec: `bytes`, or the path of the model when the store was prepared; the file may have moved since.
        fingerprint: hex sha256 of everything that defines the ids.
        size: number of ids.
        table_size: V, rows of the embedding table.
    """

    spec: str
    fingerprint: str
    size: int
    table_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreMetadata:
    """Everything in `store.json`.

    Attributes:
        source: name of the text source.
        split: name of the split.
        settings: everything that shaped the documents; see `Source.settings`. `rules_version` is the version of the
            source's rules; stores of version 0.1.0 do not have it, theirs is 1.
        signature: hex sha256 of the source's input, which detects changes without reading all of it.
        content_fingerprint: hex sha256 over the sha256 of each document's text, in order.
        counts: totals over all documents.
        left_out: numbers of omissions and repairs by reason.
        vocabulary: the vocabulary of the tokens.
        token_dtype: numpy name of the tokens' type.
        files: size in bytes and hex sha256 of every other file of the store, by relative path.
        corpus: name that the user gave to the text (`PrepareConfig.corpus`); None without one. It is no part of the
            identity or the fingerprint, which depend on the text alone.
    """

    source: str
    split: str
    settings: Mapping[str, Any]
    signature: str
    content_fingerprint: str
    counts: StoreCounts
    left_out: Mapping[str, int]
    vocabulary: VocabularyMetadata
    token_dtype: str
    files: Mapping[str, tuple[int, str]]
    corpus: str | None = None

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the content and the vocabulary, equal for equal tokens."""
        return hashlib.sha256(f"{self.content_fingerprint} {self.vocabulary.fingerprint}".encode()).hexdigest()

    @property
    def published_corpus(self) -> str | None:
        """The published corpus that the source is made for; None for other sources and for text with another name."""
        published = _PUBLISHED.get(self.source)
        return published if self.corpus in (None, published) else None

    @property
    def name(self) -> str:
        """Name of the text for people: the user's, else that of the source's published corpus, else the source."""
        return self.corpus or self.published_corpus or self.source

    @property
    def rules_version(self) -> int:
        """Version of the source's rules that shaped the documents; see `Source.rules_version`."""
        return self.settings.get(RULES_VERSION, 1)

    @property
    def identity(self) -> dict[str, Any]:
        """The input, rules and vocabulary, which a repeated preparation compares."""
        return identity(self.source, self.split, self.settings, self.signature, self.vocabulary.fingerprint)

    def to_json(self) -> str:
        """Returns the text of `store.json`; equal metadata yields equal bytes."""
        content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        if self.corpus is None:  # as in stores from before the field, which this leaves byte by byte the same
            del content["corpus"]
        return json.dumps({**content, "checksum": _checksum(content)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "StoreMetadata":
        """Reads the metadata from the text of `store.json`.

        Args:
            text: contents of the file.
            where: path of the file, for messages.

        Returns:
            The metadata.

        Raises:
            InputError: the text is damaged, or written by another version of the format.
        """
        try:
            content = json.loads(text)
            version, checksum = content.pop("format_version"), content.pop("checksum")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError(f"{where}: damaged, not the JSON of a token store; prepare the store again") from None
        if version != FORMAT_VERSION:
            raise InputError(f"{where}: format version {version!r}; this program reads version {FORMAT_VERSION}")
        if checksum != _checksum({"format_version": version, **content}):
            raise InputError(f"{where}: damaged, its checksum does not match; prepare the store again")
        counts, vocabulary = StoreCounts(**content.pop("counts")), VocabularyMetadata(**content.pop("vocabulary"))
        files = {name: (size, digest) for name, (size, digest) in content.pop("files").items()}
        return cls(**content, counts=counts, vocabulary=vocabulary, files=files)


def identity(
    source: str, split: str, settings: Mapping[str, Any], signature: str, vocabulary_fingerprint: str
) -> dict[str, Any]:
    """Returns everything that distinguishes one preparation from another, as JSON."""
    return {
        "format_version": FORMAT_VERSION,
        "source": source,
        "split": split,
        "settings": dict(settings),
        "signature": signature,
        "vocabulary": vocabulary_fingerprint,
    }


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
