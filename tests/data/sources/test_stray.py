import pytest

from block_recurrent.data.sources import stray
from block_recurrent.data.sources.stray import stray_reason
from tests.data.sources.conftest import write_files

STRAY = {
    stray.SYSTEM: ["._1.txt", "a/._1.txt", ".DS_Store", "x/.ds_store", "__MACOSX/1.txt", "Thumbs.db", "a/DESKTOP.INI"],
    stray.BACKUP: ["1.txt~", "#1.txt#", ".#1.txt", ".1.txt.swp", "1.txt.bak", "1.TXT.BAK", "1.orig", "~$1.txt",
                   ".~lock.1.txt#", "a/.ipynb_checkpoints/1-checkpoint.txt", "1.tmp"],
    stray.HIDDEN: [".hidden.txt", ".git/1.txt", "a/.cache/b/1.txt"],
}  # fmt: skip
KEPT = ["1.txt", "a/1.txt", "a.b/1.txt", "_1.txt", "~1.txt", "1~.txt", "#1.txt", "bak.txt", "1.bak.txt", "DS_Store.txt"]


@pytest.mark.parametrize("path", KEPT)
def test_other_files_are_no_stray_files(path):
    assert stray_reason(path) is None


def test_stray_files_have_a_reason():
    found = {reason: [path for path in paths if stray_reason(path) == reason] for reason, paths in STRAY.items()}
    assert found == STRAY
    assert all(stray_reason(path, hidden=False) is None for path in STRAY[stray.HIDDEN])
    assert stray_reason("a/._1.txt", hidden=False) == stray.SYSTEM


@pytest.mark.parametrize("source", ["text_folder", "jsonl", "pg19", "github"])
def test_stray_files_are_never_documents_and_are_counted(tmp_path, read_back, source):
    name = {"text_folder": "1.txt", "jsonl": "1.jsonl", "pg19": "1.txt", "github": "r/1.py"}[source]
    content = '{"text": "text"}'
    folder, slash, file = name.rpartition("/")
    files = {name: content, **{f"{folder}{slash}{stray}": content for stray in (f"._{file}", ".DS_Store", f".#{file}")}}
    write_files(tmp_path / "in", {f"train/{path}": text for path, text in files.items()})
    texts, left_out = read_back(source, tmp_path / "in")
    assert len(texts["train"]) == 1
    assert (left_out["train"][stray.SYSTEM], left_out["train"][stray.BACKUP]) == (2, 1)
