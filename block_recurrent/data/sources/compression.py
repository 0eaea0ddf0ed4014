"""Reads compressed files: gzip, bzip2, xz and Zstandard, recognised by their first bytes, not by their names."""

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import zstandard

from block_recurrent.errors import first_line

ENDINGS = (".gz", ".bz2", ".xz", ".zst")
# A decoder returns everything that one piece unpacks to, so small pieces bound the memory for malicious files.
_PIECE = 4096
_LONGEST_MARK = 6
_LARGEST_WINDOW = 1 << 31  # `zstd --long=31`, which large data sets use


def _zstandard() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()


_DECODERS: dict[re.Pattern[bytes], Callable[[], Any]] = {
    re.compile(rb"\x1f\x8b"): lambda: zlib.decompressobj(wbits=31),
    re.compile(rb"BZh[1-9]"): bz2.BZ2Decompressor,
    re.compile(rb"\xfd7zXZ\0"): lzma.LZMADecompressor,
    re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"): _zstandard,  # a frame with data, or one to skip
}
_ERRORS = (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError)


class DamagedError(Exception):
    """A compressed file is damaged or ends early."""


def is_compressed(data: bytes) -> bool:
    """Returns whether bytes begin like a compressed file."""
    return _decoder_of(data) is not None


def decompressed(raw: BinaryIO) -> io.BufferedReader:
    """Returns a file that reads the content of a compressed file, or the file itself if it is not compressed.

    Several compressed files one after the other, and padding with zeros, are read as one file, as usual.

    Args:
        raw: a file at its beginning, which can seek.

    Returns:
        The content. Reading raises a `DamagedError` where the file is damaged or ends early.
    """
    head = raw.read(_LONGEST_MARK)
    raw.seek(0)
    return io.BufferedReader(Content(raw) if is_compressed(head) else cast(io.RawIOBase, raw), 1 << 16)


def unpack(data: bytes, largest: int) -> bytes | None:
    """Decompresses bytes; returns other bytes as they are.

    Args:
        data: a whole compressed file, or anything else.
        largest: limit of the content, because a few bytes can unpack to any size.

    Returns:
        The content; None if it is larger than the limit.

    Raises:
        DamagedError: the file is damaged or ends early.
    """
    content = decompressed(io.BytesIO(data)).read(largest + 1)
    return content if len(content) <= largest else None


def _decoder_of(head: bytes) -> Callable[[], Any] | None:
    return next((decoder for mark, decoder in _DECODERS.items() if mark.match(head)), None)


class Content(io.RawIOBase):
    """Unbuffered content of one or more compressed files, one after the other."""

    def __init__(self, raw: BinaryIO):
        self._raw = raw
        self._decoder: Any = None
        self._rest = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """See `io.IOBase.readable`."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """See `io.RawIOBase.readinto`."""
        while not self._ready:
            if not self._advance():
                return 0
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _advance(self) -> bool:
        """Decompresses one more piece; returns False at the end."""
        piece, self._rest = self._rest + self._raw.read(_PIECE), b""
        if not piece:
            if self._decoder is not None:
                raise DamagedError("ends early")
            return False
        if self._decoder is None:
            if not piece.strip(b"\0"):
                return True  # padding after the end
            self._decoder = self._begin(piece)
        try:
            self._ready = memoryview(self._decoder.decompress(piece))
        except _ERRORS as error:
            raise DamagedError(first_line(error)) from None
        if self._decoder.eof:
            self._rest, self._decoder = self._decoder.unused_data, None
        return True

    def _begin(self, piece: bytes) -> Any:
        decoder = _decoder_of(piece)
        if decoder is None:
            raise DamagedError("other bytes after its end")
        return decoder()
