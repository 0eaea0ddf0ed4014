"""Writes tiny corpora in the layouts that docs/data.md downloads: `python small_corpora.py KIND FOLDER`."""

import gzip
import io
import json
import sys
import tarfile
from pathlib import Path

SENTENCE = "The {n}th traveller met {k} others on the road, and they spoke of the weather until the evening came.\n"


def prose(n: int, lines: int = 120) -> str:
    return "".join(SENTENCE.format(n=n * k + 1, k=k) for k in range(1, lines))


def code(n: int) -> str:
    return "".join(f"def function_{n}_{k}(value):\n    return value * {k} + {n}\n\n\n" for k in range(80))


def pg19(folder: Path) -> None:
    """The public bucket: SPLIT/ID.txt and metadata.csv."""
    books = {"train": range(10, 18), "validation": range(20, 22), "test": (10146, 30)}
    lines = []
    for split, numbers in books.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            (folder / split / f"{number}.txt").write_text(prose(number))
            lines.append(f"{number},Book {number},1900,http://www.gutenberg.org/ebooks/{number}\n")
    (folder / "metadata.csv").write_text("".join(lines))


def arxiv(folder: Path) -> None:
    """A monthly tar with one gzipped LaTeX file for each paper."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "arXiv_src_2401_001.tar", "w") as archive:
        for number in range(1, 60):
            body = f"\\documentclass{{article}}\n\\begin{{document}}\n{prose(number, 30)}\\end{{document}}\n"
            packed = gzip.compress(body.encode())
            member = tarfile.TarInfo(f"2401/2401.{number:05}.gz")
            member.size = len(packed)
            archive.addfile(member, io.BytesIO(packed))


def github(folder: Path) -> None:
    """Clones: OWNER/REPOSITORY/files."""
    for number in range(60):
        repository = folder / f"owner_{number % 7}" / f"repository_{number}"
        repository.mkdir(parents=True, exist_ok=True)
        (repository / "module.py").write_text(code(number))


def packages(folder: Path) -> None:
    """Unpacked wheels: SPLIT/PACKAGE/files."""
    for split, count in (("train", 8), ("validation", 2), ("test", 2)):
        for number in range(count):
            package = folder / split / f"{split}_{number}"
            package.mkdir(parents=True, exist_ok=True)
            (package / "module.py").write_text(code(number + 10 * count))


def texts(folder: Path) -> None:
    """Text files for `text_folder`, and the same texts as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(80):
        (folder / f"{number}.txt").write_text(prose(number, 40))
    lines = [json.dumps({"text": prose(number, 40), "id": f"text {number}"}) for number in range(80)]
    folder.with_suffix(".jsonl").write_text("\n".join(lines))


if __name__ == "__main__":
    {"pg19": pg19, "arxiv": arxiv, "github": github, "packages": packages, "texts": texts}[sys.argv[1]](
        Path(sys.argv[2])
    )
