import gzip
import json

import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.sources import json_lines
from block_recurrent.data.sources.splits import Splitter
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError
from tests.data.sources.conftest import write_files
from tests.data.sources.test_compression import PACK as ALL_PACK
from tests.support.vocabularies import prose

PACK = {ending: pack for ending, pack in ALL_PACK.items() if ending.isalnum()}
ALL_TRAIN = {"validation_percent": 0, "test_percent": 0}


def lines(documents):
    return "".join(json.dumps(document) + "\n" for document in documents)


def test_file_names_decide_the_splits(tmp_path, read_back):
    files = {
        "train-00000.jsonl": lines([{"text": "one", "id": "a"}, {"text": "two", "id": "b"}]),
        "train-00001.jsonl.gz": gzip.compress(lines([{"text": "three"}]).encode()),
        "valid.jsonl": lines([{"text": "four"}]),
        "readme.md": "nothing",
    }
    texts, _ = read_back("jsonl", write_files(tmp_path / "in", files))
    assert texts == {
        "train": {
            "train-00000.jsonl:1": "one",
            "train-00000.jsonl:2": "two",
            "train-00001.jsonl.gz:1": "three",
        },
        "validation": {"valid.jsonl:1": "four"},
    }


def test_document_names_decide_the_splits(tmp_path, read_back, monkeypatch):
    monkeypatch.setattr(json_lines, "_BYTES_PER_RECORD", 500)
    documents = [{"body": prose(seed, 20), "doi": f"10.1/{seed}"} for seed in range(300)]
    write_files(tmp_path / "in", {"all.jsonl": lines(documents)})
    options = {"text_field": "body", "name_field": "doi", "validation_percent": 10, "test_percent": 20}
    texts, _ = read_back("jsonl", tmp_path / "in" / "all.jsonl", **options)
    for split, found in texts.items():
        expected = {d["doi"]: d["body"] for d in documents if Splitter(10, 20).split_of(d["doi"]) == split}
        assert found == expected
    assert 20 < len(texts["validation"]) < 45
    assert 40 < len(texts["test"]) < 80
    assert sum(map(len, texts.values())) == 300


def test_without_percentages_all_documents_are_for_training(tmp_path, read_back):
    write_files(tmp_path / "in", {"all.jsonl": lines([{"text": "x"}] * 50)})
    texts, _ = read_back("jsonl", tmp_path / "in", validation_percent=0, test_percent=0)
    assert {split: len(found) for split, found in texts.items()} == {"train": 50}


def test_bad_lines_are_counted_once(tmp_path, read_back):
    content = lines([{"text": "good"}]) + "{broken\n\n[1]\n" + lines([{"text": 5}, {"title": "x"}, {"text": ""}])
    content += '{"text": "lone \\ud800 surrogate"}\n{"text": "pair \\ud83d\\ude00"}\n' + "[" * 10**5 + "\n"
    write_files(tmp_path / "in", {"all.jsonl": content})
    texts, left_out = read_back("jsonl", tmp_path / "in")
    found = [text for split in texts.values() for text in split.values()]
    assert sorted(found) == ["good", "lone \ufffd surrogate", "pair \U0001f600"]
    total = {}
    for counts in left_out.values():
        for reason, count in counts.items():
            total[reason] = total.get(reason, 0) + count
    assert total == {
        "lines that are not a JSON object (left out)": 3,
        "lines without a text in the text field (left out)": 2,
        "empty documents (left out)": 1,
        "documents with lone surrogates (replaced by U+FFFD)": 1,
    }


def test_duplicate_names_are_left_out(tmp_path, read_back):
    documents = [{"text": "first", "id": 1}, {"text": "second", "id": 1}, {"text": "third", "id": None}]
    write_files(tmp_path / "in", {"train.jsonl": lines(documents)})
    texts, left_out = read_back("jsonl", tmp_path / "in", name_field="id")
    assert texts == {"train": {"1": "first", "train.jsonl:3": "third"}}
    assert left_out["train"] == {"documents with the name of an earlier one (left out)": 1}


def test_a_truncated_gzip_is_read_up_to_its_end(tmp_path, read_back):
    whole = gzip.compress(lines([{"text": prose(seed, 2000)} for seed in range(20)]).encode())
    write_files(tmp_path / "in", {"train.jsonl.gz": whole[: len(whole) // 2]})
    texts, left_out = read_back("jsonl", tmp_path / "in")
    assert left_out["train"]["compressed files that end early or are damaged (read up to there)"] == 1
    assert 5 <= len(texts["train"]) <= 15
    for index, text in enumerate(texts["train"].values()):
        assert text == prose(index, 2000)


@pytest.mark.parametrize("source", ["arxiv", "github"])
def test_other_sources_read_json_lines(tmp_path, read_back, source):
    write_files(tmp_path / "in", {"train.jsonl": lines([{"text": "one"}]), "test.jsonl": lines([{"text": "two"}])})
    texts, _ = read_back(source, tmp_path / "in")
    assert texts == {"train": {"train.jsonl:1": "one"}, "test": {"test.jsonl:1": "two"}}


def test_several_records_per_file_keep_the_order_of_lines(tmp_path):
    documents = [{"text": "x" * 10_000 + str(index)} for index in range(250)]
    write_files(tmp_path / "in", {"train.jsonl": lines(documents)})
    config = PrepareConfig(source="jsonl", store=str(tmp_path / "s"), input=str(tmp_path / "in"), workers=2)
    (summary,) = prepare(config)
    names = list(TokenStore.open(summary.path).names)
    assert names == [f"train.jsonl:{number}" for number in range(1, 251)]


@pytest.mark.parametrize("ending", PACK)
def test_compressed_files_of_every_kind(tmp_path, read_back, ending):
    packed = PACK[ending](lines([{"text": "one\r\n"}, {"text": "two"}]).encode())
    files = {f"train.jsonl.{ending}": packed, f"test.JSONL.{ending.upper()}": packed, f"valid.json.{ending}": packed}
    texts, _ = read_back("jsonl", write_files(tmp_path / "in", files))
    assert sorted(texts) == ["test", "train", "validation"]
    assert [list(found.values()) for found in texts.values()] == [["one\r\n", "two"]] * 3
    options = ALL_TRAIN | {"store": str(tmp_path / "one")}
    texts, _ = read_back("jsonl", write_files(tmp_path, {"any name": packed}) / "any name", **options)
    assert list(texts["train"].values()) == ["one\r\n", "two"]


def test_undecodable_bytes_are_replaced_and_counted(tmp_path, read_back):
    content = b'\xef\xbb\xbf{"text": "caf\xe9"}\n{"text": "caf\xc3\xa9 \xef\xbf\xbd"}\n'
    write_files(tmp_path / "in", {"train.jsonl": content})
    texts, left_out = read_back("jsonl", tmp_path / "in")
    assert list(texts["train"].values()) == ["caf\ufffd", "café \ufffd"]
    assert left_out["train"] == {"documents with undecodable bytes (replaced by U+FFFD)": 1}


ARRAYS = {
    "one line": json.dumps([{"text": "one"}, {"text": "two"}]),
    "indented": json.dumps([{"text": "one"}, {"text": "two"}], indent=2),
    "a line per element": '[{"text": "one"},\n{"text": "two"},\n{"text": "three"}\n]\n',
    "brackets on lines of their own": '\n[\n{"text": "one"},\n{"text": "two"}\n]\n',
    "long": json.dumps([{"text": "x" * 300_000}]),
}


@pytest.mark.parametrize("content", ARRAYS.values(), ids=ARRAYS)
def test_a_json_array_is_an_error_that_names_the_mend(tmp_path, content):
    write_files(tmp_path / "in", {"array.json": content})
    config = PrepareConfig(source="jsonl", store=str(tmp_path / "s"), input=str(tmp_path / "in/array.json"), workers=1)
    with pytest.raises(InputError, match=r"has no document; it has 1 files that hold one JSON array .*jq -c"):
        prepare(config)
    assert not (tmp_path / "s").exists()


def test_an_array_next_to_json_lines_is_counted(tmp_path, read_back):
    files = {"train-0.jsonl": ARRAYS["indented"], "train-1.jsonl": '[1, 2]\n{"text": "good"}\n'}
    texts, left_out = read_back("jsonl", write_files(tmp_path / "in", files))
    assert texts["train"] == {"train-1.jsonl:2": "good"}
    assert left_out["train"] == {json_lines.ARRAY: 1, json_lines.NOT_JSON: 1}
