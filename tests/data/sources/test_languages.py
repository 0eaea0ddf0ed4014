import pytest

from block_recurrent.data.sources import code, languages
from tests.data.sources.conftest import write_files

ALL_TRAIN = {"validation_percent": 0, "test_percent": 0}
SOURCES = """
a.R a.F90 a.S a.C a.H a.PY a.Java a.ps1 a.psm1 a.vb a.pas a.groovy a.gradle a.kts a.pxd a.ipp a.ino a.zsh a.fish x.rb
a.rake a.gemspec a.coffee a.cr a.nim a.d a.cl a.glsl a.wgsl a.hlsl a.tf a.nix a.graphql a.bat a.awk a.m4 a.f a.for
a.cob a.sas a.do a.vim a.st a.tcl a.purs a.idr a.lean a.agda a.v a.sv a.vhdl a.sol a.cairo a.move a.zig a.odin a.hx
a.gd a.bzl a.star a.fsx a.sml a.thy a.wl a.pro a.erl a.escript a.wat a.ll a.nsi a.ahk a.jq a.smk a.rpy Makefile
src/Dockerfile CMakeLists.txt Rakefile Jenkinsfile BUILD WORKSPACE meson.build configure.ac SConstruct
"""
OTHERS = """
a.png a.csv a.json a.ipynb a.md a.html a.txt a.tab a.pdf LICENSE README a a.lock a.xml a.yaml a.toml a.tex
"""
COMMENTS = {
    "a/b.py": "# a/b.py\n",
    "x.CPP": "// x.CPP\n",
    "q.sql": "-- q.sql\n",
    "m.ml": "(* m.ml *)\n",
    "R/a.R": "# R/a.R\n",
    "s.css": "/* s.css */\n",
    "Makefile": "# Makefile\n",
    "m.F90": "! m.F90\n",
    "a.bat": "REM a.bat\n",
    "a.md": "<!-- a.md -->\n",
}


@pytest.mark.parametrize("path", SOURCES.split())
def test_sources_of_common_languages(path):
    assert languages.is_source(path)
    assert languages.is_source(path.upper())


@pytest.mark.parametrize("path", OTHERS.split())
def test_prose_data_and_mark_up_are_no_sources(path):
    assert not languages.is_source(path)


def test_the_path_is_a_comment_in_the_files_language():
    assert {path: languages.path_comment(path) for path in COMMENTS} == COMMENTS


def test_endings_in_capitals_and_unread_files_of_a_repository(tmp_path, read_back):
    files = {
        "r/a.R": "x <- 1\n",
        "r/b.F90": "end\n",
        "r/c.S": "nop\n",
        "r/d.csv": "1",
        "r/E.CSV": "1",
        "r/LICENSE": "free",
    }
    files |= {"s/only.md": "prose", "t/empty.py": " \n", "r/__init__.py": ""}
    texts, left_out = read_back("github", write_files(tmp_path / "in", files), **ALL_TRAIN)
    assert texts["train"] == {"r": "# a.R\nx <- 1\n! b.F90\nend\n; c.S\nnop\n"}
    assert left_out["train"] == {
        "files ending in .csv (not read)": 2,
        "files ending in .md (not read)": 1,
        "files without an ending (not read)": 1,
        code.EMPTY_FILE: 2,
        "repositories without source files (left out)": 2,
    }


def test_selected_extensions_ignore_case(tmp_path, read_back):
    files = {"r/a.R": "1\n", "r/b.r": "2\n", "r/c.py": "3\n"}
    texts, _ = read_back("github", write_files(tmp_path / "in", files), extensions=(".R",), **ALL_TRAIN)
    assert texts["train"] == {"r": "# a.R\n1\n# b.r\n2\n"}
