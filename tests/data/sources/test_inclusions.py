import pytest

from block_recurrent.data.sources.inclusions import find_macros, scan


def included(text):
    return [inclusion.name for inclusion in scan(text, find_macros([text])).inclusions]


@pytest.mark.parametrize(
    "command",
    [
        r"\input{a}",
        r"\include{a}",
        r"\subfile{a}",
        r"\subfileinclude{a}",
        r"\import{d/}{a}",
        r"\import*{d/}{a}",
        r"\subimport{d}{a}",
        r"\includefrom{d}{a}",
        r"\inputfrom{d}{a}",
        r"\subincludefrom{d}{a}",
        r"\subinputfrom{d}{a}",
        r"\InputIfFileExists{a}{}{}",
        r"\input a",
        r"\input a ",
        r"\input a\relax",
        r"\input a}",
        r'\input "a"',
        "\\input\na",
        r"\input{ a }",
        r'\input{"a"}',
        "\\input{%\na}",
        "\\input{%\n  a%\n}",
        "\\input{% {b}\r\n\ta}",
        "\\input%\n{a}",
        "\\input {a}",
        "\\input % why\n % how\n {a}",
        r"\input{\subfix{a}}",
        r"\@input{a}",
        r"\includestandalone[x=1]{a}",
        r"\lstinputlisting[language=C]{a}",
        r"\verbatiminput{a}",
        r"\inputminted{c}{a}",
        r"50\% \input{a}",
        r"\\\input{a}",
        r"\url{x%20y} \input{a}",
        "\\iftrue x\\fi\\input{a}",
        "\\let\\ifdraft\\iffalse\n\\input{a}\n\\ifdraft\\fi",
        r"\iffalse x\else\input{a}\fi",
        r"\verb|%|\input{a}",
        r"\verb*!\!\input{a}",
        r"\begin{verbatim}\end{verbatim}\input{a}",
        r"\begin{verbatim} \input{a}",
        r"\iffalse \input{a}",
        "\\newcommand{\\dir}{a}\\input{\\dir}",
        "% old Mac\r\\input{a}",
        r"\newcommand{\part}[1]{\section{x}\input{#1}}\part{a}",
        r"\def\part#1{\input{#1}}\part{a}",
    ],
)
def test_commands_that_include(command):
    assert included(f"before\n{command}\nafter") == ["a"]
    assert included(command) == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        r"% \input{a}",
        r"\\% \input{a}",
        "x % y\n% \\input{a}",
        r"\\input{a}",
        r"\inputs{a}",
        r"\includegraphics{a}",
        r"\includeonly{a}",
        r"\verb|\input{a}|",
        r"\verb+\input{a}+",
        r"\lstinline!\input{a}!",
        r"\mintinline{c}|\input{a}|",
        "\\begin{verbatim}\n\\input{a}\n\\end{verbatim}",
        "\\begin{verbatim*}\\input{a}\\end{verbatim*}",
        "\\begin{lstlisting}[x]\n\\input{a}\n\\end{lstlisting}",
        "\\begin{Verbatim}\\input{a}\\end{Verbatim}",
        "\\begin{minted}{tex}\\input{a}\\end{minted}",
        "\\begin{comment}\n\\input{a}\n\\end{comment}",
        "\\begin{filecontents*}{b.tex}\n\\input{a}\n\\end{filecontents*}",
        r"\iffalse \input{a}\fi",
        r"\iffalse \ifx\x\y \else \fi \input{a}\fi",
        "\\if0 \\input{a}\\fi",
        "\\endinput\n\\input{a}",
        "\\end{document}\n\\input{a}",
        r"\newcommand{\x}[1]{\input{a/#1}}",
        r"\renewcommand{\input}[1]{x}",
        r"\input{}",
        r"\input",
        r"\input{|ls}",
        "\\lstnewenvironment{code}{}{}\\begin{code}\\input{a}\\end{code}",
        r"\input{a{b",
        "\\excludecomment{note}\n\\begin{note}\\input{a}\\end{note}",
        r"\import{a}",
    ],
)
def test_text_that_includes_nothing(text):
    assert included(text) == []


def test_folders_and_kinds_of_inclusions():
    text = r"\import{d}{a}\subimport{e/}{b}\subfile{c}\lstinputlisting{f}\input{g}"
    found = scan(text, find_macros([])).inclusions
    assert [(i.folder, i.relative, i.verbatim) for i in found] == [
        ("d", False, False),
        ("e/", True, False),
        (None, True, False),
        (None, False, True),
        (None, False, False),
    ]
    assert [text[i.start : i.end] for i in found] == [f"\\{part}" for part in text.split("\\")[1:]]


def test_properties_of_a_file():
    text = "% \\documentclass{no}\n\\documentclass[a,\n b]{article}\n\\begin{filecontents}[x]{y.tex}\\end{filecontents}"
    found = scan(text + "\\begin{document}", find_macros([]))
    assert (found.document_class, found.begins, found.written) == ("article", True, {"y.tex"})
    assert scan("\\documentstyle[12pt]{revtex}", find_macros([])).document_class == "revtex"
    assert not scan("\\begin{verbatim}\\begin{document}\\end{verbatim}", find_macros([])).begins
    assert find_macros([r"\makeatletter\def\input@path{{a/}{b/c}}"]).folders == ("a/", "b/c")


@pytest.mark.parametrize(
    "text", ["{" * 50_000, "\\input{" * 10_000, "\\iffalse" * 3000, "%" * 100_000, "\\input{%" * 5000]
)
def test_strange_files_are_scanned_in_little_time(text):
    included(text + "\\newcommand{\\x}[1]{" * 100)
