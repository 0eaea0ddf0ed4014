"""PG19 as prepared by TensorFlow Datasets. TensorFlow is imported only to read the books, not in the workers."""

import types
from collections.abc import Iterator, Sequence
from typing import Any

from block_recurrent.data.sources.pg19 import PUBLISHED_WORDS
from block_recurrent.data.sources.source import Counts, Record, Source, TextDocument
from block_recurrent.data.sources.splits import SPLITS
from block_recurrent.data.sources.text import clean_text
from block_recurrent.errors import InputError, first_line, install_command

_DATA_SET = "pg19"


class Pg19Tfds(Source):
    """One document per book, named `<id> <title>`, in the order of TFDS.

    Args:
        data_dir: TFDS's data folder; None means TFDS's default.
    """

    name = "pg19_tfds"
    published_words = PUBLISHED_WORDS

    def __init__(self, data_dir: str | None = None):
        self._data_dir = data_dir

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source.splits`."""
        return SPLITS

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`."""
        return {"ends": "white space removed"}

    def list_files(self, split: str) -> Sequence[Record]:
        """See `Source.list_files`: one record for the whole split, with the size from TFDS's metadata."""
        return [Record(f"pg19 {split}", split, _builder(self._data_dir).info.splits[split].num_bytes)]

    def records(self, file: Record, split: str, counts: Counts) -> Iterator[Record]:
        """See `Source.records`: one record per book, with its text."""
        del counts
        builder, tfds = _builder(self._data_dir), _tensorflow_datasets()
        in_order = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
        books = builder.as_dataset(split=split, shuffle_files=False, read_config=in_order)
        for book in tfds.as_numpy(books):
            text = book["book_text"]
            title = book["book_title"].decode("utf-8", "replace")
            yield Record(f"{book['book_id']} {title}", text, len(text))

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """See `Source.documents`."""
        yield TextDocument(record.name, clean_text(record.payload.decode("utf-8", "replace"), counts).strip())


def _builder(data_dir: str | None) -> Any:
    """Returns the builder of the prepared data set.

    Raises:
        InputError: the data set is not prepared in that folder, or TensorFlow Datasets is not installed.
    """
    tfds = _tensorflow_datasets()
    builder = tfds.builder(_DATA_SET, data_dir=data_dir)
    if not builder.info.splits:
        raise InputError(
            f"TFDS data set {_DATA_SET}: not prepared in {builder.data_dir}; `tfds build {_DATA_SET}` prepares it"
        )
    return builder


def _tensorflow_datasets() -> types.ModuleType:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"source pg19_tfds needs the extra `data` ({install_command('data')}): {first_line(error)}"
        ) from None
    return tfds
