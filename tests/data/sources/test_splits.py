import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.sources import listing
from block_recurrent.data.sources.splits import marked_split, own_split, rule_of
from tests.data.sources.conftest import write_files


def splits_of(paths, **options):
    rule = rule_of(paths, **options)
    return None if rule is None else [rule(path) for path in paths]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["train/a", "test/b"], ["train", "test"]),
        (["README.txt", "train/a", "test/b"], [None, "train", "test"]),
        (["README.txt", "docs/c", "train/a", "dev/b"], [None, None, "train", "validation"]),
        (["README.txt", "train/a"], [None, "train"]),
        (["README.txt", "test/a"], [None, "test"]),
        (["docs/a", "validation/a", "test/b"], [None, "validation", "test"]),
        (["docs/a", "test/b"], None),
        (["LICENSE.jsonl", "train.jsonl", "valid-00001-of-00002.jsonl.gz"], [None, "train", "validation"]),
        (["a.txt", "train.txt"], None),
        (["train of thought.txt", "test of time.txt", "other.txt"], None),
        (["train/a", "test results.txt", "test.txt", "x.txt"], ["train", None, "test", None]),
        (["data/train/a", "data/test/b"], None),
        ([], None),
    ],
)
def test_folders_and_files_of_splits_are_used(paths, expected):
    assert splits_of(paths) == expected


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["setup.py", "train/n/a.py", "test/n/b.py"], [None, "train", "test"]),
        (["train/n/a.py", "test/n/b.py", "jax/n/a.py"], None),
        (["train.py", "test.py", "jax/n/a.py"], None),
    ],
)
def test_a_repository_with_the_name_of_a_split_is_a_coincidence(paths, expected):
    assert splits_of(paths, strict=True) == expected


def test_names_of_splits():
    assert own_split("test_results.txt") == "test"
    assert marked_split("test_results.txt") is None
    assert marked_split("Valid/any/file.txt") == "validation"


def run(tmp_path, files, **options):
    write_files(tmp_path / "in", files)
    return prepare(
        PrepareConfig(source="text_folder", store=str(tmp_path / "s"), input=str(tmp_path / "in"), workers=1, **options)
    )


def test_files_outside_the_splits_are_left_out_counted_and_warned_about(tmp_path, read_back):
    files = {"README.txt": "read me", "docs/x.txt": "doc", "notes.md": "n", "train/a.txt": "one", "test/b.txt": "two"}
    texts, left_out = read_back("text_folder", write_files(tmp_path / "in", files))
    assert texts == {"train": {"train/a.txt": "one"}, "test": {"test/b.txt": "two"}}
    assert left_out == {"train": {listing.OUTSIDE: 2, "files ending in .md (not read)": 1}, "test": {}}
    train, test = run(tmp_path, files)
    (warning,) = train.warnings
    assert "train, test are used; 2 other files, such as README.txt, are in no split and are left out" in warning
    assert not test.warnings


def test_folders_of_splits_that_are_not_used_are_warned_about(tmp_path):
    files = {"data/train/a.txt": "one", "data/test/b.txt": "two"}
    assert "those of data/test/, data/train/ too" in run(tmp_path, files)[0].warnings[0]
    assert not run(tmp_path / "other", {"a.txt": "one", "b/c.txt": "two"})[0].warnings


def test_other_files_are_counted_once_in_one_of_the_splits(tmp_path, read_back):
    files = {f"{number}.txt": "text" for number in range(5)} | {f"{number}.{number}x": "" for number in range(40)}
    (tmp_path / "in").mkdir()
    (tmp_path / "in/broken.txt").symlink_to("nowhere")
    (tmp_path / "in/linked.txt").symlink_to(tmp_path)
    _, left_out = read_back("text_folder", write_files(tmp_path / "in", files), test_percent=40)
    total = sum((listing.collections.Counter(counts) for counts in left_out.values()), listing.collections.Counter())
    assert total[listing.OTHER_ENDINGS] == 30
    assert sum(count for reason, count in total.items() if reason.startswith("files ending in")) == 10
    assert total["links to folders, broken links and special files (left out)"] == 2
    assert all(left_out[split] for split in ("train", "test"))
