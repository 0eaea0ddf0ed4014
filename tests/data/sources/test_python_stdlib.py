from pathlib import Path

import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.sources.python_stdlib import PythonStdlib, split_of
from block_recurrent.data.sources.source import Counts
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.vocabulary import ByteVocabulary
from block_recurrent.errors import InputError


def test_the_library_of_the_running_python(tmp_path):
    summaries = prepare(PrepareConfig(source="python_stdlib", store=str(tmp_path / "s"), workers=1))
    documents = sum(summary.metadata.counts.documents for summary in summaries)
    size = sum(summary.metadata.counts.bytes for summary in summaries)
    assert 250 < documents < 500
    assert 8e6 < size < 16e6
    assert summaries[0].metadata.counts.documents > 0.7 * documents
    assert "python_version" in summaries[0].metadata.settings
    for summary in summaries:
        store = TokenStore.open(summary.path)
        root = Path(PythonStdlib()._root)
        for document in range(0, len(store), 7):
            name = store.names[document]
            assert split_of(name) == store.metadata.split
            text = ByteVocabulary().decode(store.read(document, 0, 10**7))
            assert text == (root / name).read_bytes().decode("utf-8", "replace")


def test_small_modules_tests_and_generated_files_are_left_out(tmp_path):
    big, small = "x = 1\n" * 2000, "x = 1\n"
    files = {
        "good.py": big,
        "package/also_good.py": big,
        "small.py": small,
        "test/test_good.py": big,
        "package/tests/test_more.py": big,
        "site-packages/other.py": big,
        "__pycache__/cached.py": big,
        "_sysconfigdata__linux.py": big,
        "config-3.11-linux/config.py": big,
        "data.txt": big,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    source = PythonStdlib(str(tmp_path))
    kept = [record.name for split in source.splits for record in source.walk(split, Counts())]
    assert sorted(kept) == ["good.py", "package/also_good.py"]
    with pytest.raises(InputError, match="is not a folder"):
        PythonStdlib(str(tmp_path / "nowhere"))


def test_signature_depends_on_the_contents(tmp_path):
    (tmp_path / "good.py").write_text("x = 1\n" * 2000)
    before = PythonStdlib(str(tmp_path)).signature(split_of("good.py"))
    (tmp_path / "good.py").write_text("y = 1\n" * 2000)
    assert PythonStdlib(str(tmp_path)).signature(split_of("good.py")) != before


def test_a_modules_split_never_changes():
    assert [split_of(name) for name in ("ast.py", "asyncio/locks.py", "pydoc_data/topics.py")] == [
        "train",
        "validation",
        "test",
    ]
