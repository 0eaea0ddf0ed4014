"""Decodes and repairs text: the one place with the rules for every way into the program. Repairs are counted.

`decode_text` is for bytes: files, standard input, archive members. `clean_text` is for strings: fields of JSON lines.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable

BYTE_ORDER_MARK = "\ufeff"
UNDECODABLE = "documents with undecodable bytes (replaced by U+FFFD)"
SURROGATES = "documents with lone surrogates (replaced by U+FFFD)"
MARKED = "documents with a byte-order mark (removed)"
CARRIAGE_RETURNS = "documents with CRLF line ends (kept)"


def decode_text(data: bytes, counts: Counter[str] | None = None) -> str:
    """Decodes a file as UTF-8.

    Args:
        data: the whole file.
        counts: receives the repairs; None does not count.

    Returns:
        The text. Undecodable bytes become U+FFFD, a byte-order mark at the beginning is removed, line ends are kept.
    """
    counts = Counter() if counts is None else counts
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        counts[UNDECODABLE] += 1
        text = data.decode("utf-8", "replace")
    return _repaired(text, counts)


def clean_text(text: str, counts: Counter[str] | None = None) -> str:
    """Applies the rules of `decode_text` to decoded text.

    Args:
        text: any text; from JSON it may contain lone surrogates, which UTF-8 cannot encode.
        counts: receives the repairs; None does not count.

    Returns:
        Text that UTF-8 can encode.
    """
    counts = Counter() if counts is None else counts
    whole = replace_surrogates(text)
    if whole is not text:
        counts[SURROGATES] += 1
    return _repaired(whole, counts)


def replace_surrogates(text: str) -> str:
    """Returns text that UTF-8 can encode: a pair of surrogates becomes its character, a lone one U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _repaired(text: str, counts: Counter[str]) -> str:
    if text.startswith(BYTE_ORDER_MARK):
        counts[MARKED] += 1
        text = text[1:]
    if "\r\n" in text:
        counts[CARRIAGE_RETURNS] += 1
    return text


def listing_signature(entries: Iterable[tuple[str, int]]) -> str:
    """Returns a hex sha256 over names and sizes, in order."""
    digest = hashlib.sha256()
    for name, size in entries:
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
