"""PG19 in the layout of its public bucket: `{train,validation,test}/<id>.txt` and `metadata.csv`."""

import functools
from collections.abc import Iterator
from typing import Any

from etils import epath

from block_recurrent.data.sources.book_titles import BookTitles, read_titles
from block_recurrent.data.sources.files import join
from block_recurrent.data.sources.folder import FolderSource
from block_recurrent.data.sources.listing import reason_of_ending
from block_recurrent.data.sources.source import Counts, Record, TextDocument
from block_recurrent.data.sources.splits import SPLITS, Splitter
from block_recurrent.data.sources.text import decode_text
from block_recurrent.errors import InputError

# Numbers of books and words from the data set's page; word-level perplexity divides by that number of words.
PUBLISHED_DOCUMENTS = {"train": 28_602, "validation": 50, "test": 100}
PUBLISHED_WORDS = {"train": 1_973_136_207, "validation": 3_007_061, "test": 6_966_499}
_METADATA = "metadata.csv"
ELSEWHERE = "text files that are not {train,validation,test}/<id>.txt (left out)"
BROKEN = "broken lines of metadata.csv (the book has no title)"
UNTITLED = "books without a line in metadata.csv (named by their number alone)"


class Pg19(FolderSource):
    """One document per book, named `<id> <title>`. Removes white space at both ends of a book, as TFDS does.

    Args:
        root: a copy of the bucket, local or `gs://deepmind-gutenberg` itself.

    Raises:
        InputError: there are no `train/`, `validation/` or `test/` folders with `.txt` files.
    """

    name = "pg19"
    rules_version = 2  # 2: a broken line of metadata.csv costs one title; leaves out stray files
    auxiliary = (_METADATA,)
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

    def why_left_out(self, path: str) -> str | None:
        """See `FolderSource.why_left_out`."""
        reason = super().why_left_out(path)
        return ELSEWHERE if reason == reason_of_ending("x.txt") else reason

    @functools.cached_property
    def _metadata(self) -> BookTitles:
        """The titles; without the file, no book has one."""
        try:
            return read_titles((epath.Path(self.root) / _METADATA).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return BookTitles({}, [])
        except OSError as error:
            raise InputError(f"source pg19: cannot read {self.root}/{_METADATA}: {error.strerror or error}") from None

    def left_out(self, split: str) -> Counts:
        """See `Source.left_out`. A broken line counts for the split of its book, or else for the first split."""
        counts = super().left_out(split)
        books = {_number(path): self.own_split(path) for path, _ in self._listing.files}
        first = self.splits[0]
        splits_of_lines = [books.get(number) or first for number in self._metadata.broken]
        counts[BROKEN] += splits_of_lines.count(split)
        return +counts

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """See `Source.documents`."""
        number = _number(record.name)
        text = decode_text(join(self.root, record.payload).read_bytes(), counts).strip()
        title = self._metadata.titles.get(number)
        if title is None:
            counts[UNTITLED] += 1
        yield TextDocument(f"{number} {title}" if title else number, text)

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`."""
        return {"ends": "white space removed"}


def _number(path: str) -> str:
    return path.rsplit("/", 1)[-1].removesuffix(".txt")
