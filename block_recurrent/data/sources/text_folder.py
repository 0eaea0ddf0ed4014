"""A folder of text files: one document per file."""

from collections.abc import Iterator
from typing import Any

from block_recurrent.data.sources.files import join
from block_recurrent.data.sources.folder import FolderSource
from block_recurrent.data.sources.source import Counts, Record, TextDocument
from block_recurrent.data.sources.splits import Splitter
from block_recurrent.data.sources.text import decode_text


class TextFolder(FolderSource):
    """One document per file with one of the extensions, named by its path.

    Args:
        root: the folder, local or `gs://`.
        splitter: divides the documents if the folder has no `train/`, `validation/` and `test/`.
        extensions: endings of the files to read, with their dots, in upper or lower case.
    """

    name = "text_folder"
    rules_version = 2  # 2: ignores the case of endings; leaves out stray files and files outside of splits

    def __init__(self, root: str, splitter: Splitter, extensions: tuple[str, ...] = (".txt",)):
        self._extensions = extensions
        super().__init__(root, splitter)

    def wanted(self, path: str) -> bool:
        """See `FolderSource.wanted`."""
        return path.lower().endswith(tuple(ending.lower() for ending in self._extensions))

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`."""
        return {**super().settings, "extensions": sorted(self._extensions)}

    def records(self, file: Record, split: str, counts: Counts) -> Iterator[Record]:
        """See `Source.records`."""
        del counts
        if self.belongs(file.name, split):
            yield file

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """See `Source.documents`."""
        yield TextDocument(record.name, decode_text(join(self.root, record.payload).read_bytes(), counts))
