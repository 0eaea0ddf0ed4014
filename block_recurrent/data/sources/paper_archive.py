"""Unpacks the sources of one paper: a tar of any kind or one LaTeX file, compressed in any way or not at all."""

import dataclasses
import io
import posixpath
import tarfile

from block_recurrent.data.sources import compression, latex
from block_recurrent.data.sources.source import Counts
from block_recurrent.data.sources.stray import stray_reason

UNSAFE = "archive members with an absolute path or `..` (left out)"
LINKS = "links and special files in archives (left out)"
LARGEST = 256 << 20
ENDINGS = (*compression.ENDINGS, ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst")
_TAR_ENDINGS = (".tar", *(f".tar{ending}" for ending in compression.ENDINGS), *ENDINGS[len(compression.ENDINGS) + 1 :])
_LATEX_MARKS = (b"\\document", b"\\begin", b"\\section", b"\\input", b"\\magnification", b"\\title", b"\\def", b"\\bye")
_POSTSCRIPT = b"%!"
_LARGEST_OTHER = 8 << 20  # bytes of a file without the ending of LaTeX that a paper may include


class NotLatexError(Exception):
    """A paper has no LaTeX sources."""


class TooLargeError(Exception):
    """A paper is too large unpacked."""


class DamagedError(Exception):
    """A paper's archive is damaged or ends early."""


@dataclasses.dataclass(frozen=True)
class PaperFiles:
    """The files of one paper.

    Attributes:
        latex: content of the LaTeX files by path.
        others: content of other text files by path, which the paper may include.
        unread: number of files that no paper includes as text: figures and others.
    """

    latex: dict[str, bytes]
    others: dict[str, bytes]
    unread: int


def is_archive(path: str) -> bool:
    """Returns whether a name is that of a paper's archive, in upper or lower case."""
    return path.lower().endswith(ENDINGS)


def is_tar_name(path: str) -> bool:
    """Returns whether a name is that of a tar, compressed or not."""
    return path.lower().endswith(_TAR_ENDINGS)


def identifier(path: str) -> str:
    """Returns a paper's name: `2403/2403.01234.tar.gz` -> `2403.01234`, `0001/astro-ph0001001.gz` -> the same."""
    name = path.rsplit("/", 1)[-1]
    while ending := next((e for e in (*ENDINGS, *latex.ENDINGS, ".pdf") if name.lower().endswith(e)), None):
        name = name[: -len(ending)]
    return name


def unpack(name: str, data: bytes, counts: Counts) -> PaperFiles:
    """Unpacks a paper in memory.

    Args:
        name: name of the archive.
        data: content of the archive.
        counts: receives the numbers of members that are left out, by reason.

    Returns:
        The files, at least one of them LaTeX.

    Raises:
        NotLatexError: the paper has no LaTeX sources.
        TooLargeError: the paper is larger than `LARGEST`.
        DamagedError: the archive is damaged.
    """
    try:
        content = compression.unpack(data, LARGEST)
        if content is None:
            raise TooLargeError
        files = _members(content, counts) if is_tar(content) else _single(content)
    except (compression.DamagedError, tarfile.TarError, EOFError, ValueError, IndexError, OverflowError) as error:
        raise DamagedError(str(error)) from None
    if files.latex:
        return files
    damaged = is_archive(name) and not compression.is_compressed(data) and not is_tar(content) and b"\0" not in data
    raise DamagedError("not an archive") if damaged else NotLatexError


def is_tar(content: bytes) -> bool:
    """Returns whether bytes begin with the header of a tar of any kind, recognised by its checksum."""
    try:
        tarfile.TarInfo.frombuf(content[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _single(content: bytes) -> PaperFiles:
    is_latex = not content.startswith(_POSTSCRIPT) and any(mark in content for mark in _LATEX_MARKS)
    return PaperFiles({"paper.tex": content} if is_latex and b"\0" not in content else {}, {}, 0)


def _members(content: bytes, counts: Counts) -> PaperFiles:
    texts: dict[str, bytes] = {}
    others: dict[str, bytes] = {}
    unread = total = 0
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            path = posixpath.normpath(member.name)
            if member.isdir():
                continue
            if member.name.startswith("/") or ".." in member.name.split("/"):
                counts[UNSAFE] += 1
            elif not member.isfile():
                counts[LINKS] += 1
            elif reason := stray_reason(path):
                counts[reason] += 1
            else:
                total += member.size
                if total > LARGEST:  # sparse files unpack to any size
                    raise TooLargeError
                file = archive.extractfile(member)
                data = file.read() if file else b""
                if path.lower().endswith(latex.ENDINGS):
                    texts[path] = data
                elif len(data) <= _LARGEST_OTHER and b"\0" not in data:
                    others[path] = data
                else:
                    unread += 1
    return PaperFiles(texts, others, unread)
