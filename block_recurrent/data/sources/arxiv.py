"""arXiv's bulk sources: monthly tars of papers; a paper is a gzipped LaTeX file or a gzipped tar of sources."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from block_recurrent.data.sources import latex
from block_recurrent.data.sources.files import join
from block_recurrent.data.sources.folder import FolderSource
from block_recurrent.data.sources.source import Counts, Record, TextDocument
from block_recurrent.data.sources.text import decode_text

NOT_LATEX = "papers without LaTeX sources: PDF and others (left out)"
DAMAGED = "papers with a damaged archive (left out)"
TOO_LARGE = "papers larger than 256 MB unpacked (left out)"
DAMAGED_TAR = "monthly tars that end early or are damaged (read up to there)"
UNSAFE = "archive members with an absolute path or `..` (left out)"
LATIN_1 = "LaTeX files that are not UTF-8 (read as Latin-1)"
_LARGEST = 256 << 20
_TAR_MARK, _TAR_MARK_AT = b"ustar", 257
_LATEX_MARKS = (b"\\document", b"\\begin", b"\\section", b"\\input", b"\\magnification", b"\\title")


class Arxiv(FolderSource):
    r"""One document per paper, named by its identifier: the main file with its `\input`s in place, then other files.

    Reads arXiv's bulk downloads `arXiv_src_*.tar`, or a folder with their unpacked `.gz` files. Nothing is unpacked to
    disk.

    Args:
        root: folder with the tars or the papers' `.gz` files, or one tar; local or `gs://`.
        splitter: divides the papers into splits.
    """

    name = "arxiv"

    def wanted(self, path: str) -> bool:
        """See `FolderSource.wanted`."""
        return path.endswith((".tar", ".gz"))

    def records(self, file: Record, split: str, counts: Counts) -> Iterator[Record]:
        """See `Source.records`: one record per paper."""
        if not file.name.endswith(".tar"):
            if self.belongs(_identifier(file.name), split):
                yield file
            return
        with join(self.root, file.payload).open("rb") as raw:
            try:
                with tarfile.open(fileobj=cast(BinaryIO, raw), mode="r:") as archive:
                    yield from self._members(archive, file.name, split, counts)
                    raw.seek(archive.offset)
                    if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                        raise tarfile.ReadError("no end mark")  # tarfile itself takes a truncated header for the end
            except (tarfile.TarError, EOFError):
                counts[DAMAGED_TAR] += self.belongs(file.name, split)  # once, although every split reads the tar

    def _members(self, archive: tarfile.TarFile, name: str, split: str, counts: Counts) -> Iterator[Record]:
        while member := archive.next():
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # else it keeps every header
            if not member.isfile() or not self.belongs(_identifier(member.name), split):
                continue
            if not member.name.endswith(".gz"):
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
            content = _unzip(data)
            files = None if content is None else _latex_files(content, counts)
        except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError):
            counts[DAMAGED] += 1
            return
        if files is None:
            counts[TOO_LARGE] += 1
        elif not files:
            counts[NOT_LATEX] += 1
        else:
            paper = latex.Paper(files)
            counts[latex.NO_MAIN] += paper.main is None
            text = paper.text()
            counts[latex.NOT_FOUND] += paper.not_found
            yield TextDocument(_identifier(record.name), text)


def _identifier(path: str) -> str:
    """`2403/2403.01234.gz` -> `2403.01234`, `0001/astro-ph0001001.gz` -> `astro-ph0001001`."""
    return path.rsplit("/", 1)[-1].removesuffix(".gz").removesuffix(".pdf").removesuffix(".tar")


def _unzip(data: bytes) -> bytes | None:
    """Returns a gzip's content; None if it exceeds the limit, because a few bytes can unpack to any size."""
    with gzip.open(io.BytesIO(data)) as file:
        content = file.read(_LARGEST + 1)
    return content if len(content) <= _LARGEST else None


def _latex_files(content: bytes, counts: Counts) -> dict[str, str]:
    """Returns the text of a paper's LaTeX files by path, possibly none."""
    if content[_TAR_MARK_AT : _TAR_MARK_AT + len(_TAR_MARK)] != _TAR_MARK:
        return {"paper.tex": _decode(content, counts)} if any(mark in content for mark in _LATEX_MARKS) else {}
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            if path.startswith("/") or ".." in path.split("/"):
                counts[UNSAFE] += 1
            elif member.isfile() and path.lower().endswith(latex.ENDINGS):
                file = archive.extractfile(member)
                files[path] = _decode(file.read() if file else b"", counts)
    return files


def _decode(data: bytes, counts: Counts) -> str:
    """Decodes UTF-8, or else Latin-1, the encoding of most older papers."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        counts[LATIN_1] += 1
        return data.decode("latin-1")
    return decode_text(data, counts)
