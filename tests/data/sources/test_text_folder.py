import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.sources.source import Counts
from block_recurrent.data.sources.splits import Splitter, own_split, rule_of
from block_recurrent.data.sources.synthetic import SyntheticRecall
from block_recurrent.errors import InputError
from tests.data.sources.conftest import write_files
from tests.support.vocabularies import prose


def test_folder_names_decide_the_splits(tmp_path, read_back):
    files = {"train/a.txt": "one", "train/b/c.txt": "two", "dev/d.txt": "three", "test/e.txt": "four", "train/x.md": ""}
    texts, _ = read_back("text_folder", write_files(tmp_path / "in", files))
    assert texts == {
        "train": {"train/a.txt": "one", "train/b/c.txt": "two"},
        "validation": {"dev/d.txt": "three"},
        "test": {"test/e.txt": "four"},
    }


def test_hashed_splits_and_extensions(tmp_path, read_back):
    files = {f"chapter {seed}.md": prose(seed, 10) for seed in range(60)} | {"ignored.txt": "x"}
    write_files(tmp_path / "in", files)
    texts, _ = read_back("text_folder", tmp_path / "in", extensions=(".md",), validation_percent=25)
    assert {name: text for found in texts.values() for name, text in found.items()} == {
        name: text for name, text in files.items() if name.endswith(".md")
    }
    for split, found in texts.items():
        assert all(Splitter(25, 5).split_of(name) == split for name in found)


def test_unusual_contents_are_repaired_and_counted(tmp_path, read_back):
    files = {
        "train/bom.txt": b"\xef\xbb\xbfmarked",
        "train/crlf.txt": b"a\r\nb\r\n",
        "train/empty.txt": b"",
        "train/latin.txt": "café".encode("latin-1"),
        "train/nul.txt": b"a\0b",
        "train/one.txt": b"x",
        "train/only_bom.txt": b"\xef\xbb\xbf",
    }
    texts, left_out = read_back("text_folder", write_files(tmp_path / "in", files))
    assert texts["train"] == {
        "train/bom.txt": "marked",
        "train/crlf.txt": "a\r\nb\r\n",
        "train/latin.txt": "caf\ufffd",
        "train/nul.txt": "a\0b",
        "train/one.txt": "x",
    }
    assert left_out["train"] == {
        "documents with a byte-order mark (removed)": 2,
        "documents with CRLF line ends (kept)": 1,
        "documents with undecodable bytes (replaced by U+FFFD)": 1,
        "empty documents (left out)": 2,
    }


def test_a_file_name_that_is_not_utf8_is_escaped(tmp_path, read_back):
    folder = tmp_path / "in" / "train"
    folder.mkdir(parents=True)
    try:
        (folder / b"caf\xe9.txt".decode("utf-8", "surrogateescape")).write_text("text")
    except OSError:
        pytest.skip("this file system does not allow such a name")
    texts, _ = read_back("text_folder", tmp_path / "in")
    assert texts == {"train": {"train/caf\\udce9.txt": "text"}}


def test_a_changed_input_is_detected(tmp_path):
    write_files(tmp_path / "in", {"train/a.txt": "one"})
    config = PrepareConfig(source="text_folder", store=str(tmp_path / "s"), input=str(tmp_path / "in"))
    prepare(config)
    write_files(tmp_path / "in", {"train/b.txt": "two"})
    with pytest.raises(InputError, match="holds another store"):
        prepare(config)


def test_paths_that_name_a_split_are_recognised():
    named = {"train/x": "train", "valid/x": "validation", "train-0001.jsonl": "train", "test.txt": "test",
             "TEST/a": "test"}  # fmt: skip
    assert {path: own_split(path) for path in named} == named
    for path in ("training/x", "train-ticket/x", "x/train/y", "testament.txt", "0.txt"):
        assert own_split(path) is None
    assert rule_of(["test/a", "other/b"]) is None
    assert rule_of([]) is None


def test_a_source_without_input_refuses_one(tmp_path):
    with pytest.raises(InputError, match="python_stdlib reads no input"):
        prepare(PrepareConfig(source="python_stdlib", store=str(tmp_path / "s"), input="x"))


def test_synthetic_documents_repeat_the_facts_that_they_define():
    source = SyntheticRecall(documents=3, characters=5000, facts=5)
    texts = []
    for split in source.splits:
        for record in source.walk(split, Counts()):
            (document,) = source.documents(record, Counts())
            texts.append(document.text)
            facts = [line.split()[1:] for line in document.text.splitlines() if line.startswith("remember ")]
            recalled = [line.split()[1:] for line in document.text.splitlines() if line.startswith("recall ")]
            assert sorted(facts) == sorted(recalled)
            assert len(facts) == 5
            assert 4500 < len(document.text) < 5500
    assert len(set(texts)) == 5
    again = [
        document.text for record in source.walk("train", Counts()) for document in source.documents(record, Counts())
    ]
    assert again == texts[:3]
