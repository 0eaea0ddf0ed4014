"""Selection of a repository's source files that people wrote: no third-party code, build products, data or binaries."""

VENDORED = "vendored files: third-party code, build products, hidden folders (left out)"
GENERATED = "generated or minified files (left out)"
BINARY = "binary files (left out)"
EMPTY_FILE = "empty files (left out)"
LONG_LINES = "files with a line of more than 20,000 bytes: data (left out)"
TOO_LARGE = "files larger than 1 MB (left out)"
LARGEST_FILE = 1 << 20
LONGEST_LINE = 20_000
_VENDORED_FOLDERS = {
    *("vendor", "vendors", "vendored", "_vendor", "third_party", "third-party", "thirdparty", "3rdparty"),
    *("external", "externals", "node_modules", "bower_components", "site-packages", "dist-packages", "deps"),
    *("Pods", "Carthage", "Godeps", "dist", "build", "target", "out", "venv", "env", "__pycache__"),
}


def is_vendored(path: str) -> bool:
    """Returns whether a file is in a folder of third-party code or build products, or in a hidden folder."""
    folders = path.split("/")[:-1]
    return any(folder in _VENDORED_FOLDERS or folder.startswith(".") for folder in folders)


def is_binary(data: bytes) -> bool:
    """Returns whether a file contains a NUL byte, which text never does."""
    return b"\0" in data


def has_long_line(data: bytes) -> bool:
    """Returns whether a file has a line that only programs write and read."""
    return max(map(len, data.split(b"\n"))) > LONGEST_LINE
