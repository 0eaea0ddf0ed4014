"""The corpus of Python packages: its list, and what is unpacked from wheels; nothing is downloaded."""

import re
import zipfile

import pytest

from experiments.laptop.python_packages import Package, read_list, unpack


def test_every_package_has_a_version_a_hash_and_a_split():
    packages = read_list()
    splits = [package.split for package in packages]
    assert {split: splits.count(split) for split in set(splits)} == {"train": 253, "validation": 16, "test": 24}
    assert len({package.name for package in packages}) == len(packages)
    for package in packages:
        assert re.fullmatch(r"[a-z0-9-]+==\S+ --hash=sha256:[0-9a-f]{64}", package.requirement)


@pytest.fixture
def wheels(tmp_path):
    contents = {
        "My_Lib-1.0-py3-none-any.whl": {"my_lib/a.py": "a = 1\n", "my_lib/same.py": "shared\n", "my_lib/data.bin": "x"},
        "other-2.0-py3-none-any.whl": {"other/same.py": "shared\n", "../outside.py": "no\n", "/root.py": "no\n"},
        "last-2.0-py3-none-any.whl": {"last/b.py": "b = 2\n"},
    }
    for name, files in contents.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
    return tmp_path


def test_held_out_packages_keep_files_that_training_packages_repeat(wheels, tmp_path):
    packages = [Package("train", "my-lib", ""), Package("test", "other", ""), Package("validation", "last", "")]
    unpack(packages, wheels, tmp_path / "source")
    found = {path.relative_to(tmp_path / "source").as_posix() for path in (tmp_path / "source").rglob("*.py")}
    assert found == {"test/other/other/same.py", "train/my-lib/my_lib/a.py", "validation/last/last/b.py"}
    assert (tmp_path / "source/test/other/other/same.py").read_text() == "shared\n"
    assert not list(tmp_path.rglob("outside.py"))
