import bz2
import gzip
import io
import lzma
import os
import tarfile

import zstandard

from block_recurrent.data.sources import paper_archive
from block_recurrent.data.sources.stray import SYSTEM
from tests.data.sources.conftest import write_files

HEAD = "\\documentclass{article}\n\\begin{document}\n"
MAIN = HEAD + "Hello.\n\\input{intro}\n\\include{parts/method.tex}\nBye.\n\\end{document}\n"
SINGLE = HEAD + "Alone.\n\\end{document}\n"


def tar(files, form=tarfile.USTAR_FORMAT, links=()):
    """Returns the bytes of a tar with files and links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
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


def test_every_file_of_a_paper_without_main_file_is_read(tmp_path, read_back):
    write_files(tmp_path / "in", {"x/0001.gz": paper({"b.tex": "\\section{B}", "a.tex": "\\section{A}"})})
    texts, left_out = read_back("arxiv", tmp_path / "in", **ALL_TRAIN)
    assert texts == {"train": {"0001": "\\section{A}\n\\section{B}\n"}}
    assert left_out["train"] == {"papers without a main file (files in path order)": 1}


TREE = {
    "main.tex": MAIN,
    "intro.tex": "Intro.\n",
    "parts/method.tex": "Method.\n",
    "._main.tex": b"\0mac",
    "fig.png": b"\0",
}
FORMATS = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}
PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def version_7(data):
    """Returns a tar with its headers as the first tar wrote them: without a mark of the format."""
    blocks = bytearray(data)
    for start in range(0, len(blocks), 512):
        if blocks[start + 257 : start + 262] == b"ustar":
            blocks[start + 257 : start + 512] = bytes(255)
            blocks[start + 156] = 0 if blocks[start + 156] == ord("0") else blocks[start + 156]
            blocks[start + 148 : start + 156] = b" " * 8
            blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + 512])
    return bytes(blocks)


def test_every_kind_of_tar_is_a_paper(tmp_path, read_back):
    expected = EXPECTED["2403.00001"]
    kinds = {kind: tar(TREE, form) for kind, form in FORMATS.items()}
    kinds["v7"] = version_7(kinds["ustar"])
    files = {f"{kind}.tar{ending}": pack(data) for kind, data in kinds.items() for ending, pack in PACK.items()} | {
        f"one{ending[1:]}.tex{ending}": pack(SINGLE.encode()) for ending, pack in PACK.items() if ending
    }
    files |= {"short.TGZ": gzip.compress(kinds["v7"]), "2403.00009.gz": gzip.compress(kinds["v7"])}
    store = {"store": str(tmp_path / "store")}
    texts, left_out = read_back("arxiv", write_files(tmp_path / "in", files), **ALL_TRAIN, **store)
    assert {name: text for name, text in texts["train"].items() if not name.startswith("one")} == {
        **dict.fromkeys(kinds, expected),
        "short": expected,
        "2403.00009": expected,
    }
    assert [text for name, text in texts["train"].items() if name.startswith("one")] == [SINGLE] * 4
    papers = 4 * 5 + 2
    assert left_out["train"] == {
        SYSTEM: papers,
        "figures, styles, bibliographies and other files of papers (not read)": papers,
        "documents with the name of an earlier one (left out)": 4 * 4,
    }


def test_monthly_tars_may_be_compressed(tmp_path, read_back):
    for number, (ending, pack) in enumerate(PACK.items()):
        papers = {f"2403/2403.{number:05}.gz": paper(TREE), "2403/2403.9.pdf": b"%PDF"}
        write_files(tmp_path / "in", {f"arXiv_src_2403_{number}.tar{ending}": pack(tar(papers))})
    texts, left_out = read_back("arxiv", tmp_path / "in", **ALL_TRAIN)
    assert texts == {"train": {f"2403.{number:05}": EXPECTED["2403.00001"] for number in range(5)}}
    assert left_out["train"]["papers without LaTeX sources: PDF and others (left out)"] == 5


def test_a_compressed_monthly_tar_that_ends_early_is_counted(tmp_path, read_back):
    papers = {f"2403/2403.{number:05}.gz": paper(TREE | {"r.bin": os.urandom(5000)}) for number in range(8)}
    whole = gzip.compress(tar(papers))
    write_files(tmp_path / "in", {"arXiv_src_2403_001.tar.gz": whole[: len(whole) // 2]})
    texts, left_out = read_back("arxiv", tmp_path / "in", **ALL_TRAIN)
    assert 2 <= len(texts["train"]) <= 4
    assert left_out["train"]["monthly tars that end early or are damaged (read up to there)"] == 1


def test_damaged_headers_of_papers_are_counted(tmp_path, read_back):
    whole = tar(TREE)
    damaged = {}
    for place in (512 * 3, 512 * 3 + 130, 512 * 3 + 150, 600, len(whole) - 2000):
        data = bytearray(whole)
        data[place : place + 8] = b"\xff" * 8
        damaged[f"2403.{place:05}.gz"] = gzip.compress(bytes(data[: place + 5000]))
    texts, left_out = read_back("arxiv", write_files(tmp_path / "in", damaged | {"good.gz": paper(TREE)}), **ALL_TRAIN)
    assert "good" in texts["train"]
    assert (
        len(texts["train"]) + left_out["train"].get("papers with a damaged archive (left out)", 0) == len(damaged) + 1
    )


def test_the_summary_counts_what_is_missing_and_what_is_never_included(tmp_path, read_back):
    files = {"main.tex": MAIN + "\\input{gone}", "intro.tex": "Intro \\input{gone}", "rest.tex": "Rest"}
    texts, left_out = read_back("arxiv", write_files(tmp_path / "in", {"x.gz": paper(files)}), **ALL_TRAIN)
    assert texts["train"]["x"].endswith("\\end{document}\n\\input{gone}\nRest\n")
    assert left_out["train"] == {
        "included files that are not there (the command is kept)": 2,  # the second `gone` comes after the end
        "LaTeX files that no file includes, besides the main file (appended)": 1,
    }
