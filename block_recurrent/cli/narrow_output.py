"""Output in an encoding that lacks characters, such as ASCII: what it has is printed, and the rest is counted."""

import codecs
import contextlib
import io
import sys
from collections.abc import Iterator

_HANDLER = "block_recurrent.narrow_output"
_MAY_FAIL = ("strict", "surrogateescape")  # other handlers of `PYTHONIOENCODING` are the user's choice
_SIMILAR = {"█": "#", "━": "-", "╸": "-", "╺": "-", "─": "-", "│": "|", "•": "*", "…": ".", "\u2013": "-", "—": "-"}
_SPINNERS = range(0x2800, 0x2900)  # of rich
_ESCAPED_BYTES = range(0xDC80, 0xDD00)  # Python's form of bytes of a file name that are not UTF-8


@contextlib.contextmanager
def narrow_output() -> Iterator[None]:
    """Prints `?` for a character that the encoding of standard output lacks; counts them in a warning at the end."""
    lost = 0

    def replace(error: UnicodeError) -> tuple[str, int]:
        nonlocal lost
        assert isinstance(error, UnicodeEncodeError)
        shown = [_shown(character) for character in error.object[error.start : error.end]]
        lost += shown.count("?")
        return "".join(shown), error.end

    codecs.register_error(_HANDLER, replace)
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper) and stream.errors in (*_MAY_FAIL, _HANDLER):
        stream.reconfigure(errors=_HANDLER)
    try:
        yield
    finally:
        if lost:
            with contextlib.suppress(OSError, ValueError):  # standard error may be closed
                sys.stderr.write(
                    f"warning: {lost:,} characters are not in standard output's encoding, {stream.encoding}, and are "
                    "printed as ?; PYTHONIOENCODING=utf-8 prints all\n"
                )


def _shown(character: str) -> str:
    code = ord(character)
    if code in _ESCAPED_BYTES:
        return f"\\x{code - 0xDC00:02x}"
    return _SIMILAR.get(character, "*" if code in _SPINNERS else "?")
