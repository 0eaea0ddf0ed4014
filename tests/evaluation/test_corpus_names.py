"""Names of corpora in results: the user's, and the paper's only for text that is not named otherwise."""

import dataclasses
from pathlib import Path

import pytest

from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.evaluation.provenance import describe_data, official_words
from tests.data.conftest import write_store

T5 = 32_128


def named(folder: Path, source: str, corpus: str | None, table: int = T5) -> TokenStore:
    """Returns a store that claims to come from a source; its vocabulary has `table` rows."""
    store = write_store(folder, ["one two three"])
    about = store.metadata
    vocabulary = about.vocabulary if table == 260 else dataclasses.replace(about.vocabulary, fingerprint="t5")
    vocabulary = dataclasses.replace(vocabulary, table_size=table)
    store.metadata = dataclasses.replace(about, source=source, corpus=corpus, vocabulary=vocabulary)
    return store


@pytest.mark.parametrize(
    ("source", "corpus", "label", "stand_in", "column"),
    [
        ("pg19", None, "PG19", False, "PG19 tokens"),
        ("pg19_tfds", "PG19", "PG19", False, "PG19 tokens"),
        ("pg19", "my books", "my books", False, None),
        ("arxiv", None, "arXiv (stand-in)", True, "arXiv"),
        ("github", "GitHub", "GitHub (stand-in)", True, "GitHub"),
        ("github", "Python packages", "Python packages", False, None),
        ("jsonl", None, "jsonl", False, None),
        ("jsonl", "PG19", "PG19", False, None),  # other rules: not the paper's column
    ],
)
def test_labels_and_columns_of_the_paper(tmp_path, source, corpus, label, stand_in, column):
    about = describe_data(named(tmp_path / "test", source, corpus))
    assert (about.label, about.stand_in, about.paper_column) == (label, stand_in, column)


def test_bytes_have_a_column_only_as_pg19(tmp_path):
    assert describe_data(named(tmp_path / "a", "pg19", None, 260)).paper_column == "PG19 bytes"
    assert describe_data(named(tmp_path / "b", "pg19", "my books", 260)).paper_column is None


def test_published_words_are_for_pg19_alone(tmp_path, monkeypatch):
    store = named(tmp_path / "a", "pg19", "my books")
    split = store.metadata.split
    monkeypatch.setattr("block_recurrent.evaluation.provenance.PUBLISHED_DOCUMENTS", {split: 1})
    monkeypatch.setattr("block_recurrent.evaluation.provenance.PUBLISHED_WORDS", {split: 7})
    assert official_words(store) is None
    assert official_words(named(tmp_path / "b", "pg19", None)) == 7
