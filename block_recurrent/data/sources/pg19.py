"""PG19 in the layout of its public bucket: `{train,validation,test}/<id>.txt` and `metadata.csv`."""

import csv
import functools
import io
from collections.abc import Iterator
from typing import Any

from etils import epath

from block_recurrent.data.sources.files import join
from block_recurrent.data.sources.folder import FolderSource
from block_recurrent.data.sources.source import Counts, Record, TextDocument
from block_recurrent.data.sources.splits import SPLITS, Splitter
from block_recurrent.data.sources.text import decode_text
from block_recurrent.errors import InputError

# Numbers of books and words from the data set's page; word-level perplexity divides by that number of words.
PUBLISHED_DOCUMENTS = {"train": 28_602, "validation": 50, "test": 100}
PUBLISHED_WORDS = {"train": 1_973_136_207, "validation": 3_007_061, "test": 6_966_499}
UNTITLED = "books without a line in metadata.csv (named by their number alone)"


class Pg19(FolderSource):
    """One document per book, named `<id> <title>`. Removes white space at both ends of a book, as TFDS does.

    Args:
        root: a copy of the bucket, local or `gs://deepmind-gutenberg` itself.

    Raises:
        InputError: there are no `train/`, `validation/` or `test/` folders with `.txt` files.
    """

    name = "pg19"
    published_words = PUBLISHED_WORDS

    def __init__(self, root: str):
        super().__init__(root, Splitter(0, 0))
        if not self.has_own_splits:
            folders = ", ".join(f"{split}/" for split in SPLITS)
            raise InputError(f"source pg19: {root} must hold the folders {folders} with <id>.txt files")

    def wanted(self, path: str) -> bool:
        """See `FolderSource.wanted`."""
        folder, _, name = path.partition("/")
        return folder in SPLITS and name.endswith(".txt") and "/" not in name

    @functools.cached_property
    def _titles(self) -> dict[str, str]:
        """Titles by id. A missing file, or a line without a title, leaves books without title."""
        try:
            text = (epath.Path(self.root) / "metadata.csv").read_bytes().decode("utf-8-sig", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {line[0]: line[1] for line in csv.reader(io.StringIO(text)) if len(line) > 1}

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """See `Source.documents`."""
        number = record.name.split("/")[1].removesuffix(".txt")
        text = decode_text(join(self.root, record.payload).read_bytes(), counts).strip()
        title = self._titles.get(number)
        if title is None:
            counts[UNTITLED] += 1
        yield TextDocument(f"{number} {title}" if title else number, text)

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`."""
        return {"ends": "white space removed"}
