import csv

import pytest

from block_recurrent.data.sources import pg19
from block_recurrent.data.sources.book_titles import read_titles
from tests.data.sources.conftest import write_files

BEFORE, AFTER = "1,First,1850,u1\n", "\n3,Third,1852,u3\n"


@pytest.mark.parametrize(
    "line",
    [
        '2,"Unclosed,1851,u2',
        '2,"Unclosed' + " and long" * 20_000 + ",1851,u2",
        '2,"A "quoted" word",1851,u2',
        "2",
        "2,Title",
        "2,Title,1851",
        "2,Title, with a comma,1851,u2",
        "2," + "T" * 1001 + ",1851,u2",
        "2," + "T" * 200_000 + ",1851,u2",
        "2,Bell\x07,1851,u2",
        "2,Escape \x1b[31m,1851,u2",
        "2,NUL\0,1851,u2",
        "2,Next line\x85,1851,u2",
        ",No number,1851,u2",
        "not a number,Title,1851,u2",
        "1,The same number,1851,u2",
    ],
    ids=range(16),
)
def test_a_broken_line_costs_that_line_alone(line):
    for end in ("\n", "\r\n"):
        found = read_titles((BEFORE + line + AFTER).replace("\n", end).encode())
        assert found.titles == {"1": "First", "3": "Third"}
        assert len(found.broken) == 1


def test_an_unclosed_quote_before_much_text():
    rest = "".join(f"{number},Book {number},1850,u\n" for number in range(3, 9000))
    found = read_titles((BEFORE + '2,"Unclosed,1851,u2\n' + rest).encode())
    assert found.titles == {"1": "First"} | {str(number): f"Book {number}" for number in range(3, 9000)}
    assert found.broken == ["2"]


def test_correct_lines_are_read_as_csv_has_them():
    titles = ["A Tale, with a comma", 'A "quoted" word', "Ünïcode", "T" * 1000, "Two\nlines", ""]
    titles = {str(number): title for number, title in enumerate(titles, 1)}
    lines = [f'{number},"{title.replace(chr(34), 2 * chr(34))}",1850,u' for number, title in titles.items()]
    text = "\n".join(lines) + "\n\n"
    assert [row[1] for row in csv.reader(text.splitlines(keepends=True)) if row] == list(titles.values())
    for data in (text.encode(), b"\xef\xbb\xbf" + text.encode(), text.replace("\n", "\r\n").encode()):
        found = read_titles(data)
        assert found.titles == titles | {"5": "Two lines"}
        assert not found.broken
    assert read_titles(b"_id,title,year,url\n1,T\xff,1850,u\n").titles == {"1": "T\ufffd"}
    assert not read_titles(b"_id,title,year,url\n").broken


def test_broken_lines_are_counted_in_the_split_of_their_books(tmp_path, read_back):
    files = {f"{split}/{number}.txt": "text" for number, split in enumerate(("train", "validation", "test"))}
    lines = '0,"Unclosed,1,u\n1,"Another,1,u\n2,Good,1,u\nnothing\n'
    texts, left_out = read_back("pg19", write_files(tmp_path / "in", files | {"metadata.csv": lines}))
    assert [list(found) for found in texts.values()] == [["0"], ["1"], ["2 Good"]]
    assert [counts.get(pg19.BROKEN) for counts in left_out.values()] == [2, 1, None]
    assert [counts.get(pg19.UNTITLED) for counts in left_out.values()] == [1, 1, None]
