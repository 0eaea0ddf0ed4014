import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.sources import pg19
from block_recurrent.errors import InputError
from tests.data.sources.conftest import write_files
from tests.support.vocabularies import prose

METADATA = (
    '10,"A Tale, with a comma",1850,http://x/10\n'
    "11,Second Book,1851,http://x/11\n"
    "not a book\n"
    "20,Third Book,1899,http://x/20\n"
)


@pytest.fixture
def bucket(tmp_path):
    """A folder with the layout of the public bucket."""
    files = {
        "metadata.csv": METADATA,
        "train/10.txt": "\n\n  " + prose(1, 500) + "\n\n",
        "train/11.txt": prose(2, 500),
        "train/9.txt": prose(3, 10),
        "train/notes.md": "not a book",
        "train/deeper/12.txt": "not a book either",
        "validation/20.txt": b"\xef\xbb\xbfmarked\r\nbook",
        "test/30.txt": b"broken \xff byte",
        "other/40.txt": "in no split",
    }
    return write_files(tmp_path / "pg19", files)


def test_books_are_named_by_their_titles(bucket, read_back):
    texts, left_out = read_back("pg19", bucket)
    assert texts == {
        "train": {
            "10 A Tale, with a comma": prose(1, 500).strip(),
            "11 Second Book": prose(2, 500).strip(),
            "9": prose(3, 10).strip(),
        },
        "validation": {"20 Third Book": "marked\r\nbook"},
        "test": {"30": "broken \ufffd byte"},
    }
    assert left_out["train"] == {
        pg19.UNTITLED: 1,
        pg19.BROKEN: 1,
        pg19.ELSEWHERE: 2,
        "files ending in .md (not read)": 1,
    }
    assert left_out["validation"] == {
        "documents with CRLF line ends (kept)": 1,
        "documents with a byte-order mark (removed)": 1,
    }
    assert left_out["test"]["documents with undecodable bytes (replaced by U+FFFD)"] == 1


def test_without_metadata_books_are_named_by_their_numbers(bucket, read_back):
    (bucket / "metadata.csv").unlink()
    texts, left_out = read_back("pg19", bucket)
    assert list(texts["train"]) == ["10", "11", "9"]
    assert left_out["train"]["books without a line in metadata.csv (named by their number alone)"] == 3


def test_words_are_compared_with_the_published_ones(bucket, tmp_path):
    config = PrepareConfig(source="pg19", store=str(tmp_path / "s"), input=str(bucket), splits=("test",))
    for unchanged in (False, True):
        (summary,) = prepare(config)
        assert summary.unchanged is unchanged
        (warning,) = summary.warnings
        assert "pg19 test: 3 words in 1 documents; 6,966,499 words were published" in warning


def test_the_error_for_another_layout_names_the_expected_one(tmp_path):
    write_files(tmp_path, {"books/10.txt": "text"})
    for given, message in [
        (str(tmp_path), "has no file that this source reads"),
        (str(tmp_path / "nowhere"), "does not exist"),
        (str(tmp_path / "books/10.txt"), "must hold the folders train/, validation/, test/"),
    ]:
        with pytest.raises(InputError, match=message):
            prepare(PrepareConfig(source="pg19", store=str(tmp_path / "s"), input=given))
    with pytest.raises(InputError, match="source pg19 needs a copy of the public bucket"):
        prepare(PrepareConfig(source="pg19", store=str(tmp_path / "s")))


def test_the_error_for_a_missing_split_names_it(bucket, tmp_path):
    with pytest.raises(InputError, match="source pg19 has no split 'dev'"):
        prepare(PrepareConfig(source="pg19", store=str(tmp_path / "s"), input=str(bucket), splits=("dev",)))
