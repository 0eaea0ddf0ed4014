import gzip
import io
import tarfile

import pytest

from block_recurrent.data.sources import paper_archive
from block_recurrent.data.sources.latex import Paper
from tests.data.sources.conftest import write_files

HEAD = "\\documentclass{article}\n\\begin{document}\n"
MAIN = HEAD + "Hello.\n\\input{intro}\n\\include{parts/method.tex}\nBye.\n\\end{document}\n"
SINGLE = HEAD + "Alone.\n\\end{document}\n"


def tar(files, links=()):
    """Returns the bytes of a tar with files and links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            content = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


def paper(files, **options):
    return gzip.compress(tar(files, **options))


PAPERS = {
    "2403/2403.00001.gz": paper(
        {"main.tex": MAIN, "intro.tex": "Intro.\n", "parts/method.tex": "Method.\n", "fig.pdf": b"%PDF"}
    ),
    "2403/2403.00002.gz": gzip.compress(SINGLE.encode()),
    "2403/2403.00003.pdf": b"%PDF-1.4 only a PDF",
    "2403/2403.00004.gz": paper({"main.tex": SINGLE})[:-40],
    "2403/2403.00005.gz": paper(
        {"../../etc/evil.tex": "evil", "/abs.tex": "evil", "main.tex": SINGLE}, links=[("link.tex", "/etc/passwd")]
    ),
    "2403/2403.00006.gz": gzip.compress(b"%!PS-Adobe postscript"),
    "2403/2403.00007.gz": paper(
        {"old.tex": "\\documentstyle{article}\n\\begin{document}caf\xe9\\end{document}\n".encode("latin-1")}
    ),
    "2403/2403.00008.gz": paper({"notes.txt": "no TeX here"}),
    "2403/2403.00009.gz": b"not a gzip at all",
}
EXPECTED = {
    "2403.00001": MAIN.replace("\\input{intro}", "Intro.\n").replace("\\include{parts/method.tex}", "Method.\n"),
    "2403.00002": SINGLE,
    "2403.00005": SINGLE,
    "2403.00007": "\\documentstyle{article}\n\\begin{document}café\\end{document}\n",
}
LEFT_OUT = {
    "papers without LaTeX sources: PDF and others (left out)": 3,
    "papers with a damaged archive (left out)": 2,
    "archive members with an absolute path or `..` (left out)": 2,
    "links and special files in archives (left out)": 1,
    "figures, styles, bibliographies and other files of papers (not read)": 1,
    "LaTeX files that are not UTF-8 (read as Latin-1)": 1,
}
ALL_TRAIN = {"validation_percent": 0, "test_percent": 0}


def test_monthly_tars_are_read_paper_by_paper(tmp_path, read_back):
    first = dict(list(PAPERS.items())[:4])
    second = dict(list(PAPERS.items())[4:])
    files = {"arXiv_src_2403_001.tar": tar(first), "arXiv_src_2403_002.tar": tar(second), "arXiv_src_manifest.xml": ""}
    texts, left_out = read_back("arxiv", write_files(tmp_path / "in", files), **ALL_TRAIN)
    assert texts == {"train": EXPECTED}
    assert left_out["train"] == LEFT_OUT | {"files ending in .xml (not read)": 1}
    assert not list(tmp_path.rglob("evil.tex"))


def test_unpacked_tars_have_the_same_papers(tmp_path, read_back):
    texts, left_out = read_back("arxiv", write_files(tmp_path / "in", PAPERS), **ALL_TRAIN)
    assert texts == {"train": EXPECTED}
    assert left_out["train"] == LEFT_OUT


def test_hashed_splits_hold_every_paper_once(tmp_path, read_back):
    papers = {f"2403/2403.{number:05}.gz": gzip.compress(SINGLE.encode()) for number in range(80)}
    write_files(tmp_path / "in", {"arXiv_src_2403_001.tar": tar(papers)})
    texts, _ = read_back("arxiv", tmp_path / "in", validation_percent=20, test_percent=20)
    names = [name for found in texts.values() for name in found]
    assert sorted(names) == sorted(f"2403.{number:05}" for number in range(80))
    assert all(len(found) > 5 for found in texts.values())


def test_a_tar_that_ends_early_is_read_up_to_its_end(tmp_path, read_back):
    papers = {f"2403/2403.{number:05}.gz": gzip.compress(SINGLE.encode()) for number in range(8)}
    whole = tar(papers)
    for index, size in enumerate((4 * 1024 + 550, 4 * 1024 + 100)):  # in a paper, in a header
        write_files(tmp_path / f"in{index}", {"arXiv_src_2403_001.tar": whole[:size]})
        options = ALL_TRAIN | {"store": str(tmp_path / f"store{index}")}
        texts, left_out = read_back("arxiv", tmp_path / f"in{index}", **options)
        assert list(texts["train"]) == [f"2403.{number:05}" for number in range(4)]
        assert left_out["train"] == {"monthly tars that end early or are damaged (read up to there)": 1}


def test_a_gzip_bomb_is_left_out(tmp_path, read_back, monkeypatch):
    monkeypatch.setattr(paper_archive, "LARGEST", 1 << 20)
    papers = {
        "2403/bomb.gz": gzip.compress(b"\\begin" + bytes(4 << 20)),
        "2403/good.gz": gzip.compress(SINGLE.encode()),
    }
    write_files(tmp_path / "in", {"arXiv_src_2403_001.tar": tar(papers)})
    texts, left_out = read_back("arxiv", tmp_path / "in", **ALL_TRAIN)
    assert list(texts["train"]) == ["good"]
    assert left_out["train"] == {"papers larger than 256 MB unpacked (left out)": 1}


WHOLE = "\\documentclass{a}\\begin{document}%s\\end{document}\n"


@pytest.mark.parametrize(
    ("files", "main"),
    [
        ({"a.tex": "text", "b.tex": WHOLE}, "b.tex"),
        ({"a.tex": WHOLE, "main.tex": WHOLE}, "main.tex"),
        ({"sub/main.tex": WHOLE, "ms.tex": WHOLE}, "ms.tex"),
        ({"a.tex": WHOLE, "b.tex": WHOLE + "longer"}, "b.tex"),
        ({"a.tex": "\\documentclass{standalone}", "b.tex": WHOLE}, "b.tex"),
        ({"a.tex": "% \\documentclass{x}\n% \\begin{document}", "b.tex": "text"}, None),
        ({"a.tex": WHOLE, "b.tex": WHOLE}, "a.tex"),
    ],
)
def test_the_main_file_is_found(files, main):
    assert Paper(files).main == main


def test_included_files_replace_their_commands_once():
    files = {
        "src/main.tex": WHOLE
        % "\\input{a} \\input b \n% \\input{c}\n50\\% \\input{sub/d} \\input{a} \\inputs{x} \\input{missing}",
        "src/a.tex": "[A \\input{a}]",
        "src/b.tex": "[B]",
        "src/c.tex": "[C]",
        "src/sub/d.tex": "[D \\subfile{e}]",
        "src/sub/e.tex": "[E \\input{../b}]",
        "z.tex": "[Z]",
    }
    paper = Paper(files)
    assert paper.text() == (
        WHOLE % "[A \\input{a}] [B] \n% \\input{c}\n50\\% [D [E \\input{../b}]] \\input{a} \\inputs{x} \\input{missing}"
        + "[C]\n[Z]\n"
    )
    assert paper.not_found == 1


def test_a_very_long_chain_of_includes_ends():
    files = {f"f{index}.tex": f"\\input{{f{index + 1}}}\n{index}" for index in range(3000)}
    text = Paper(files).text()
    assert all(f"{index}\n" in text for index in range(3000))


def test_every_file_of_a_paper_without_main_file_is_read(tmp_path, read_back):
    write_files(tmp_path / "in", {"x/0001.gz": paper({"b.tex": "\\section{B}", "a.tex": "\\section{A}"})})
    texts, left_out = read_back("arxiv", tmp_path / "in", **ALL_TRAIN)
    assert texts == {"train": {"0001": "\\section{A}\n\\section{B}\n"}}
    assert left_out["train"] == {"papers without a main file (files in path order)": 1}
