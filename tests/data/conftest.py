"""Small corpora, vocabularies and stores for the data tests."""

import dataclasses

import pytest

from block_recurrent.data.sources.source import TextDocument
from block_recurrent.data.store.encoded_document import encode_document, token_dtype
from block_recurrent.data.store.metadata import VocabularyMetadata, identity
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.store.writer import StoreWriter
from block_recurrent.data.vocabulary import ByteVocabulary, SentencePieceVocabulary
from tests.support.vocabularies import prose, train_pieces


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    """Path of a tiny SentencePiece model."""
    return train_pieces(tmp_path_factory.mktemp("vocabulary") / "tiny")


@pytest.fixture(scope="session")
def pieces(model_path):
    return SentencePieceVocabulary(model_path)


def describe(vocabulary):
    return VocabularyMetadata(
        spec=vocabulary.spec,
        fingerprint=vocabulary.fingerprint,
        size=vocabulary.size,
        table_size=vocabulary.table_size,
    )


def write_store(folder, texts, vocabulary=None, shard=None):
    """Writes and opens a store of texts: a list, or a dict of texts by name."""
    vocabulary = vocabulary or ByteVocabulary()
    dtype = token_dtype(vocabulary.table_size)
    options = {} if shard is None else {"shard": shard}
    writer = StoreWriter(folder, identity("texts", "train", {}, "none", vocabulary.fingerprint), dtype, **options)
    texts = texts if isinstance(texts, dict) else {f"document {index}": text for index, text in enumerate(texts)}
    for name, text in texts.items():
        writer.add(encode_document(TextDocument(name, text), vocabulary, dtype))
    writer.finish(describe(vocabulary), {})
    return TokenStore.open(folder)


@dataclasses.dataclass(frozen=True)
class Sample:
    texts: list[str]
    store: TokenStore


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """Documents of one token to several chunks, in a store of several shards."""
    texts = [prose(seed, size) for seed, size in enumerate([1, 30, 5000, 1, 12000, 700, 3])] + ["x", "\n"]
    return Sample(texts, write_store(tmp_path_factory.mktemp("sample") / "train", texts, shard=1 << 15))
