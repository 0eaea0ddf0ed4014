"""What a token store says about itself: the contents of its `store.json`."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from block_recurrent.errors import InputError

FILE_NAME = "store.json"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreCounts:
    """Totals over a store's documents.

    Attributes:
        documents: how many, those too short to read included.
        tokens: of all documents.
        bytes: of their texts in UTF-8.
        characters: Unicode code points of their texts.
        words: runs of characters that are not white space.
        unknown_tokens: tokens with the vocabulary's unknown id.
        longest_document: in tokens.
        median_document: in tokens.
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
    """Which vocabulary made the tokens.

    Attributes:
        spec: as it was named when the store was prepared; a path may have moved since.
        fingerprint: hex sha256 of what defines the ids.
        size: ids in use.
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
        split: which part of it.
        settings: what shaped the documents.
        signature: hex sha256 over the source's input, to recognise a change without reading it all.
        content_fingerprint: hex sha256 over the sha256 of each document's text, in order.
        counts: totals.
        left_out: what was left out or repaired, by reason.
        vocabulary: which vocabulary made the tokens.
        token_dtype: numpy name of the tokens' type.
        files: size in bytes and hex sha256 of every other file of the store, by relative path.
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

    @property
    def fingerprint(self) -> str:
        """Hex sha256 that is equal for equal tokens: of the content and the vocabulary."""
        return hashlib.sha256(f"{self.content_fingerprint} {self.vocabulary.fingerprint}".encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """What a repeated preparation compares: the input, the rules and the vocabulary."""
        return identity(self.source, self.split, self.settings, self.signature, self.vocabulary.fingerprint)

    def to_json(self) -> str:
        """The file's text; the same metadata gives the same bytes."""
        content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        return json.dumps({**content, "checksum": _checksum(content)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "StoreMetadata":
        """The metadata in a file's text.

        Args:
            text: contents of the file.
            where: the file's path, for messages.

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
            raise InputError(f"{where}: damaged, its checksum does not fit; prepare the store again")
        counts, vocabulary = StoreCounts(**content.pop("counts")), VocabularyMetadata(**content.pop("vocabulary"))
        files = {name: (size, digest) for name, (size, digest) in content.pop("files").items()}
        return cls(**content, counts=counts, vocabulary=vocabulary, files=files)


def identity(
    source: str, split: str, settings: Mapping[str, Any], signature: str, vocabulary_fingerprint: str
) -> dict[str, Any]:
    """What tells one preparation from another, as JSON."""
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
