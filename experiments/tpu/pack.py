"""Packs the working tree for the hosts of a TPU slice: `python3 experiments/tpu/pack.py ARCHIVE.tar.gz`.

Files that git tracks, with their uncommitted changes, and new files that git does not ignore. Prints what it leaves
out. Needs only Python's standard library.
"""

import subprocess
import sys
import tarfile
from pathlib import Path

MEGABYTES_OF_NEW_FILES = 100


def listed(*arguments: str) -> list[str]:
    """Returns the paths that `git ls-files` lists."""
    done = subprocess.run(["git", "ls-files", "-z", *arguments], capture_output=True, check=True)
    return [name for name in done.stdout.decode().split("\0") if name]


def size(name: str) -> int:
    path = Path(name)
    return 0 if path.is_symlink() or not path.is_file() else path.stat().st_size


def check_new_files(new: list[str]) -> None:
    """Ends with one line if the new files are too large, as a folder of raw data is."""
    sizes: dict[str, int] = {}
    for name in new:
        top = name.partition("/")[0]
        sizes[top] = sizes.get(top, 0) + size(name)
    if sum(sizes.values()) > MEGABYTES_OF_NEW_FILES * 10**6:
        largest = max(sizes, key=lambda top: sizes[top])
        sys.exit(
            f"tpu.sh: new files that git does not ignore take {sum(sizes.values()) / 1e6:,.0f} MB, at most "
            f"{MEGABYTES_OF_NEW_FILES} MB are copied; the largest: {largest}, {sizes[largest] / 1e6:,.0f} MB. Hosts "
            f"read data from the bucket: add `/{largest}` to .git/info/exclude, or move it"
        )


def main(archive: str) -> None:
    new = listed("--others", "--exclude-standard")
    check_new_files(new)
    present = [name for name in listed() if Path(name).exists() or Path(name).is_symlink()]  # others were deleted
    with tarfile.open(archive, "w:gz") as tar:
        for name in sorted({*present, *new}):
            tar.add(name, recursive=False)
    ignored = listed("--others", "--ignored", "--exclude-standard", "--directory")
    left = [name for name in ignored if "__pycache__" not in name and not name.startswith(".")]
    print(f"packed {len(present):,} tracked files with their changes, and {len(new):,} new files")
    if left:
        print(f"left out, because git ignores them: {', '.join(left[:8])}{' ...' if len(left) > 8 else ''}")


if __name__ == "__main__":
    main(*sys.argv[1:])
