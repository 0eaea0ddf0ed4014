"""arXiv's bulk sources: monthly tars of papers; a paper is a compressed LaTeX file or a compressed tar of sources."""

import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from block_recurrent.data.sources import compression, latex, paper_archive
from block_recurrent.data.sources.files import join
from block_recurrent.data.sources.folder import FolderSource
from block_recurrent.data.sources.paper_archive import identifier
from block_recurrent.data.sources.source import Counts, Record, TextDocument
from block_recurrent.data.sources.stray import stray_reason
from block_recurrent.data.sources.text import decode_text

NOT_LATEX = "papers without LaTeX sources: PDF and others (left out)"
DAMAGED = "papers with a damaged archive (left out)"
TOO_LARGE = "papers larger than 256 MB unpacked (left out)"
DAMAGED_TAR = "monthly tars that end early or are damaged (read up to there)"
LATIN_1 = "LaTeX files that are not UTF-8 (read as Latin-1)"
UNREAD = "figures, styles, bibliographies and other files of papers (not read)"
_PAPER_ID = re.compile(r"\d{4}\.\d{4,5}(v\d+)?|[a-z-]+(\.[A-Z]{2})?\d{7}(v\d+)?")


class Arxiv(FolderSource):
    r"""One document per paper, named by its identifier: the main file with its `\input`s in place, then other files.

    Reads arXiv's bulk downloads `arXiv_src_*.tar`, or a folder with papers: tars of any kind or single LaTeX files,
    compressed with gzip, bzip2, xz or Zstandard, or not. Nothing is unpacked to disk.

    Args:
        root: folder with the tars or the papers' files, or one tar; local or `gs://`.
        splitter: divides the papers into splits.
    """

    name = "arxiv"
    rules_version = 2  # 2: the main file and the places of the parts follow from the graph of inclusions; every tar

    def wanted(self, path: str) -> bool:
        """See `FolderSource.wanted`."""
        return paper_archive.is_archive(path)

    def why_left_out(self, path: str) -> str | None:
        """See `FolderSource.why_left_out`. A PDF is a paper without sources."""
        return NOT_LATEX if path.lower().endswith(".pdf") and not stray_reason(path) else super().why_left_out(path)

    def hashed_name(self, path: str) -> str:
        """See `FolderSource.hashed_name`."""
        return identifier(path)

    def records(self, file: Record, split: str, counts: Counts) -> Iterator[Record]:
        """See `Source.records`: one record per paper."""
        try:
            if not paper_archive.is_tar_name(file.name) or self._is_paper(file):
                if self.belongs(identifier(file.name), split):
                    yield file
                return
            yield from self._papers(file, split, counts)
        except (tarfile.TarError, compression.DamagedError, EOFError, ValueError, IndexError):
            counts[DAMAGED_TAR] += self.belongs(file.name, split)  # once, although every split reads the tar

    def _is_paper(self, file: Record) -> bool:
        """Returns whether a tar holds the files of one paper, not papers."""
        with join(self.root, file.payload).open("rb") as raw:
            content = compression.decompressed(cast(BinaryIO, raw))
            if not paper_archive.is_tar(content.peek(tarfile.BLOCKSIZE)[: tarfile.BLOCKSIZE]):
                return True
            try:
                with tarfile.open(fileobj=content, mode="r|") as archive:
                    for member in archive:
                        archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # else it keeps every header
                        if member.isfile() and _PAPER_ID.fullmatch(identifier(member.name)):
                            return False
                        if member.isfile() and member.name.lower().endswith(latex.ENDINGS):
                            return True
            except (tarfile.TarError, compression.DamagedError, EOFError, ValueError, IndexError):
                return False
        return False

    def _papers(self, file: Record, split: str, counts: Counts) -> Iterator[Record]:
        with join(self.root, file.payload).open("rb") as raw:
            content = compression.decompressed(cast(BinaryIO, raw))
            in_place = not isinstance(content.raw, compression.Content)
            source = raw if in_place else content
            with tarfile.open(fileobj=cast(BinaryIO, source), mode="r:" if in_place else "r|") as archive:
                yield from self._members(archive, file.name, split, counts)
                if in_place:
                    raw.seek(archive.offset)
                    if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                        raise tarfile.ReadError("no end mark")  # tarfile itself takes a truncated header for the end

    def _members(self, archive: tarfile.TarFile, name: str, split: str, counts: Counts) -> Iterator[Record]:
        while member := archive.next():
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # else it keeps every header
            if not member.isfile() or not self.belongs(identifier(member.name), split):
                continue
            if reason := stray_reason(member.name.removeprefix("./")):
                counts[reason] += 1
            elif not member.name.lower().endswith((*paper_archive.ENDINGS, *latex.ENDINGS)):
                counts[NOT_LATEX] += 1
            elif (content := archive.extractfile(member)) is not None:
                data = content.read()
                if len(data) < member.size:
                    raise tarfile.ReadError("unexpected end of data")
                yield Record(f"{name}/{member.name}", data, member.size)

    def documents(self, record: Record, counts: Counts) -> Iterator[TextDocument]:
        """See `Source.documents`."""
        data = record.payload if isinstance(record.payload, bytes) else join(self.root, record.payload).read_bytes()
        try:
            files = paper_archive.unpack(record.name, data, counts)
        except paper_archive.DamagedError:
            counts[DAMAGED] += 1
        except paper_archive.TooLargeError:
            counts[TOO_LARGE] += 1
        except paper_archive.NotLatexError:
            counts[NOT_LATEX] += 1
        else:
            texts = {path: _decode(content, counts) for path, content in files.latex.items()}
            paper = latex.Paper(texts, files.others, lambda content: _decode(content, counts))
            text = paper.text()
            counts[latex.NO_MAIN] += paper.main is None
            counts[latex.NOT_FOUND] += paper.not_found
            counts[latex.NEVER_INCLUDED] += paper.never_included
            counts[UNREAD] += files.unread + len(files.others) - paper.others_used
            yield TextDocument(identifier(record.name), text)


def _decode(data: bytes, counts: Counts) -> str:
    """Decodes UTF-8, or else Latin-1, the encoding of most older papers."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        counts[LATIN_1] += 1
        return data.decode("latin-1")
    return decode_text(data, counts)
