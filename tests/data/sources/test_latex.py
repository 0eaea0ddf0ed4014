import pytest

from block_recurrent.data.sources.latex import Paper

WHOLE = "\\documentclass{a}\\begin{document}%s\\end{document}\n"
PART = "\\documentclass[main]{subfiles}\\begin{document}%s\\end{document}\n"


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
        # a document with more parts
        (
            {"main.tex": WHOLE % "\\input{s}", "s.tex": "S", "z.tex": WHOLE % "\\input{p}", "p.tex": "text text text"},
            "z.tex",
        ),
        # the document class in a part, the beginning of the document in a part
        ({"a.tex": "\\input{p}\\begin{document}\\input{q}", "p.tex": "\\documentclass{a}", "q.tex": "Q"}, "a.tex"),
        ({"a.tex": "\\input{p}\\input{q}", "p.tex": "\\documentclass{a}\\begin{document}", "q.tex": "Q"}, "a.tex"),
        # parts that are documents of their own
        ({"main.tex": WHOLE % "\\subfile{p}", "p.tex": PART % ("text " * 99)}, "main.tex"),
        ({"m.tex": WHOLE % "x", "f.tex": "\\documentclass{standalone}\\begin{document}" + "data " * 99}, "m.tex"),
        # circles
        ({"a.tex": "\\input{b}", "b.tex": WHOLE % "\\input{a}"}, "b.tex"),
        ({"a.tex": WHOLE % "\\input{a}", "c.tex": "text " * 99}, "a.tex"),
        # plain TeX
        ({"macros.tex": "\\def\\x{}", "p.tex": "\\input macros \\bye"}, "p.tex"),
        ({"only.tex": "text"}, "only.tex"),
    ],
)
def test_the_main_file_is_found(files, main):
    assert Paper(files).main == main


def text_and_counts(files, **others):
    paper = Paper(files, **others)
    return paper.text(), paper.not_found, paper.never_included


def test_a_supplement_keeps_its_parts():
    files = {
        "a.tex": "[A]",
        "main.tex": WHOLE % ("text " * 9 + "\\input{b}"),
        "b.tex": "[B]",
        "supp.tex": WHOLE % "\\input{a}\\input{b}",
    }
    assert text_and_counts(files) == (WHOLE % ("text " * 9 + "[B]") + WHOLE % "[A]\\input{b}", 0, 1)


def test_parts_of_subfiles_in_one_folder_or_in_several():
    main = WHOLE % "\\subfile{sections/one}\\subfile{sections/two}"
    expected = WHOLE % ((PART % "[1\\input{missing}[F]]").rstrip("\n") + "\n" + PART % "[2]")
    one, two, figure = PART % "[1\\input{missing}\\input{figure}]", PART % "[2]", "[F]"
    flat = {"main.tex": main, "one.tex": one, "two.tex": two, "figure.tex": figure}
    deep = {"main.tex": main, "sections/one.tex": one, "sections/two.tex": two, "sections/figure.tex": figure}
    assert text_and_counts(flat) == text_and_counts(deep) == (expected, 1, 0)


def test_names_in_another_case_and_over_two_lines():
    files = {
        "m.tex": WHOLE % "\\input{PART}\\input{%\n  Next}\\include{sub/Third.TEX}",
        "part.tex": "[1]",
        "NEXT.tex": "[2]",
        "Sub/third.tex": "[3]",
    }
    assert text_and_counts(files) == (WHOLE % "[1][2][3]", 0, 0)
    exact = {"m.tex": WHOLE % "\\input{Part}\\input{part}", "part.tex": "[1]", "Part.tex": "[2]"}
    assert text_and_counts(exact) == (WHOLE % "[2][1]", 0, 0)


def test_imports_change_the_folder_of_what_they_include():
    files = {
        "m.tex": WHOLE % "\\import{one}{a}\\input{b}\\subimport{two/}{a}\\import{two}{none}",
        "one/a.tex": "[1a\\input{b}\\subimport{deep}{c}]",
        "one/b.tex": "[1b]",
        "one/deep/c.tex": "[c\\input{d}]",
        "one/deep/d.tex": "[d]",
        "two/a.tex": "[2a\\input{b}]",
        "two/b.tex": "[2b]",
        "b.tex": "[b]",
    }
    assert text_and_counts(files) == (WHOLE % "[1a[1b][c[d]]][b][2a[2b]]\\import{two}{none}", 1, 0)


def test_files_with_other_endings_are_included_by_their_whole_names():
    files = {"m.tex": WHOLE % "\\input{t.txt}\\lstinputlisting{c.py}\\input{d}\\input{m.bbl}"}
    others = {"t.txt": b"[T\\input{c.py}]", "c.py": b"\\input{t.txt}", "d.txt": b"D", "m.bbl": b"[B]", "x.sty": b""}
    paper = Paper(files, others)
    assert paper.text() == WHOLE % "[T\\input{t.txt}]\\lstinputlisting{c.py}\\input{d}[B]"
    assert (paper.others_used, paper.not_found) == (3, 1)


def test_circles_end():
    files = {
        "main.tex": WHOLE % "\\input{a}",
        "a.tex": "[A\\input{b}]",
        "b.tex": "[B\\input{a}\\input{main}\\input{b}]",
    }
    assert text_and_counts(files) == (WHOLE % "[A[B\\input{a}\\input{main}\\input{b}]]", 0, 0)
    assert text_and_counts({"x.tex": "[X\\input{y}]", "y.tex": "[Y\\input{x}]"}) == ("[X[Y\\input{x}]]\n", 0, 0)


def test_what_latex_ignores_is_not_included_but_appended():
    files = {
        "m.tex": WHOLE % "% \\input{a}\n\\verb|\\input{b}|" + "\\input{c}",
        "a.tex": "[A]",
        "b.tex": "[B]",
        "c.tex": "[C]",
    }
    assert text_and_counts(files) == (files["m.tex"] + "\n[A]\n[B]\n[C]\n", 0, 3)


def test_a_file_that_the_paper_writes_itself_is_not_missing():
    text = "\\begin{filecontents}{own.tex}x\\end{filecontents}" + WHOLE % "\\input{own}\\input{other}"
    assert text_and_counts({"m.tex": text}) == (text, 1, 0)


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
    expected = (
        WHOLE % "[A \\input{a}] [B] \n% \\input{c}\n50\\% [D [E \\input{../b}]] \\input{a} \\inputs{x} \\input{missing}"
    )
    assert text_and_counts(files) == (expected + "[C]\n[Z]\n", 1, 2)


def test_a_very_long_chain_of_includes_is_in_place():
    files = {f"f{index}.tex": f"{index}\\input{{f{index + 1}}}\n" for index in range(3000)}
    text, not_found, never = text_and_counts(files)
    assert text.replace("\n", "") == "".join(map(str, range(3000))) + "\\input{f3000}"
    assert (not_found, never) == (1, 0)
