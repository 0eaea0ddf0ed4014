"""Downloads the source code of a fixed list of Python packages as a folder of repositories, for `prepare`.

The list, `python_packages.txt`, is a requirements file with a heading for each split. pip downloads the wheels and
checks their hashes; nothing is installed, built or imported.

    python -m experiments.laptop.python_packages
    python -m block_recurrent prepare --gin-file gin/data/python_packages.gin
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).with_name("python_packages.txt")
FOLDER = Path("prepared/python_packages_source")
# Test documents first: of equal files only the first is kept, so that training text never repeats held-out text.
_SPLITS = ("test", "validation", "train")


class Package(NamedTuple):
    """One line of the list.

    Attributes:
        split: the split of the package's document.
        name: name on PyPI.
        requirement: the whole line, for pip.
    """

    split: str
    name: str
    requirement: str


def read_list(path: Path = LIST) -> list[Package]:
    """Reads the list: packages under the headings `# split: NAME`; other comments are skipped."""
    packages, split = [], ""
    for line in path.read_text().splitlines():
        if line.startswith("# split: "):
            split = line.removeprefix("# split: ")
        elif line and not line.startswith("#"):
            packages.append(Package(split, line.partition("==")[0], line))
    return packages


def download(packages: Sequence[Package], folder: Path) -> None:
    """Downloads one wheel for each package; pip refuses a file with another hash."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(package.requirement for package in packages))
        requirements.flush()
        pure = ["--platform", "any", "--implementation", "py", "--abi", "none", "--python-version", "3.12"]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        subprocess.run([*command, *pure, "-r", requirements.name, "-d", str(folder)], check=True)


def unpack(packages: Sequence[Package], wheels: Path, folder: Path) -> None:
    """Writes the Python files of each wheel to `folder/SPLIT/NAME/`, each distinct content once."""
    seen: set[str] = set()
    found = {_normalised(wheel.name.partition("-")[0]): wheel for wheel in sorted(wheels.glob("*.whl"))}
    for package in sorted(packages, key=lambda package: (_SPLITS.index(package.split), package.name)):
        for path, content in _python_files(found[_normalised(package.name)]):
            digest = hashlib.sha256(content).hexdigest()
            if digest not in seen:
                seen.add(digest)
                file = folder / package.split / package.name / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)


def _python_files(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".py") and ".." not in Path(name).parts and not name.startswith("/"):
                yield name, archive.read(name)


def _normalised(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def main() -> None:
    """Downloads and unpacks, unless the folder is there already."""
    if FOLDER.exists():
        print(f"{FOLDER} is there already; delete it to download again")
        return
    packages = read_list()
    print(f"downloading {len(packages)} packages")
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as temporary:
        wheels, unpacked = Path(temporary) / "wheels", Path(temporary) / "source"
        download(packages, wheels)
        unpack(packages, wheels, unpacked)
        shutil.move(unpacked, FOLDER)  # complete or not at all
    print(f"{FOLDER}: {sum(1 for _ in FOLDER.rglob('*.py')):,} files")


if __name__ == "__main__":
    main()
