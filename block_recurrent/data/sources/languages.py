"""Programming languages: the endings and names of their source files, and the mark that begins a comment.

The list covers the programming languages that are common on GitHub. Endings are compared without regard to case: `.R`,
`.F90` and `.S` are as usual as their small forms, and where capitals mean a relative (`.C` is C++), both are read.
"""

import functools

# Language, mark that begins a comment, endings without the dot. A shared ending has the first one's mark.
_LANGUAGES = (
    ("C", "//", "c h cats idc w"),
    ("C++", "//", "cc cpp cxx c++ cp cppm hh hpp hxx h++ inl ipp ixx re tcc tpp txx ino"),
    ("CUDA, Metal, OpenCL", "//", "cu cuh metal cl opencl"),
    (
        "shaders",
        "//",
        "glsl glslf glslv vert frag geom geo comp tesc tese fsh vsh vshader fshader hlsl hlsli cginc fx fxh "
        "shader wgsl rgen rchit rmiss",
    ),
    ("Objective-C", "//", "m mm"),
    ("Java", "//", "java jav jsh pde"),
    ("Kotlin", "//", "kt kts ktm"),
    ("Scala, Groovy, Gradle", "//", "scala sc sbt groovy grt gvy gsh gradle"),
    ("C#", "//", "cs csx cake linq"),
    ("Go", "//", "go"),
    ("Rust", "//", "rs rsx"),
    ("Swift", "//", "swift"),
    (
        "JavaScript",
        "//",
        "js cjs mjs es es6 jsx jsm jss jake jsb jscad jsfl jslib njs pac sjs ssjs xsjs xsjslib gs qml",
    ),
    ("TypeScript", "//", "ts cts mts tsx ets"),
    ("Dart", "//", "dart"),
    ("D", "//", "d di"),
    ("PHP, Hack", "//", "php php3 php4 php5 phps phpt phtml ctp aw inc hack hh"),
    ("Zig, V, Odin, Vala", "//", "zig v vv odin vala vapi"),
    ("Verilog", "//", "sv svh vh veo"),
    ("Solidity, Move, Cairo", "//", "sol move cairo"),
    ("Haxe, ActionScript", "//", "hx hxsl as"),
    ("interface languages", "//", "proto thrift capnp fbs idl smithy avdl"),
    ("Stan, ReScript, Reason, Gleam", "//", "stan res resi rei gleam"),
    ("Chapel, Ceylon, Pony, Ballerina", "//", "chpl ceylon pony bal"),
    ("Pike, SuperCollider, SourcePawn", "//", "pike pmod scd sp sma"),
    ("OpenSCAD, UnrealScript, Squirrel, AngelScript", "//", "scad uc nut angelscript"),
    ("Dafny, Alloy, P4, OpenQASM, Q#", "//", "dfy als p4 qasm qs"),
    ("Jsonnet, CUE, Bicep, Prisma", "//", "jsonnet libsonnet cue bicep prisma"),
    ("ANTLR, PEG.js", "//", "g4 pegjs peggy"),
    ("Sass, Less, Stylus", "//", "scss less styl"),
    ("Apex", "//", "apex trigger"),
    ("Game Maker", "//", "gml"),
    ("Python, Cython, Mojo", "#", "py pyi pyw pyx pxd pxi py3 pyde pyp pyt gyp gypi tac wsgi xpy mojo"),
    ("Starlark", "#", "bzl star bazel"),
    (
        "Ruby, Crystal",
        "#",
        "rb rbi rbw rbx rbuild ru rake gemspec podspec builder god jbuilder mspec rabl ruby thor watchr cr ecr",
    ),
    ("shell", "#", "sh bash bats ksh zsh fish csh tcsh command tmux nu elv xonsh ebuild eclass"),
    ("PowerShell", "#", "ps1 psd1 psm1"),
    ("Perl, Raku", "#", "pl pm perl al ph plx psgi t cgi fcgi raku rakumod rakutest p6 pl6 pm6 nqp"),
    ("R", "#", "r rsx"),
    ("Julia", "#", "jl"),
    ("Elixir", "#", "ex exs"),
    ("Nim", "#", "nim nims nimble nimrod"),
    ("CoffeeScript", "#", "coffee cjsx iced"),
    ("CMake, Make, Meson, Ninja", "#", "cmake mak mk make mkfile mkd ninja"),
    ("autoconf", "#", "ac am m4"),
    ("Tcl", "#", "tcl adp tm tk sdc xdc"),
    ("GDScript", "#", "gd"),
    ("gnuplot, awk, sed", "#", "gp gnu gnuplot plot plt awk gawk mawk nawk auk sed"),
    ("Nix, Terraform, Puppet, Rego", "#", "nix tf hcl nomad pp rego"),
    ("GraphQL", "#", "graphql gql graphqls"),
    ("Snakemake, SageMath", "#", "smk snakefile sage"),
    ("Robot Framework, Gherkin", "#", "robot feature"),
    ("Dockerfile", "#", "dockerfile containerfile"),
    ("Boo, Cobra, Zeek, Praat, Io", "#", "boo cobra zeek bro praat io"),
    ("jq, just, Ren'Py", "#", "jq just rpy"),
    ("Haskell", "--", "hs hsc lhs cabal"),
    ("Lua", "--", "lua luau rockspec nse wlua"),
    ("SQL", "--", "sql ddl prc udf viw pls pck pkb pks plb plsql pgsql mysql tsql cql"),
    ("Elm, PureScript", "--", "elm purs"),
    ("Ada", "--", "adb ads ada gpr"),
    ("VHDL", "--", "vhd vhdl vhf vhi vho vhs vht vhw"),
    ("Agda, Idris, Lean, Dhall", "--", "agda idr lidr lean hlean dhall"),
    ("AppleScript", "--", "applescript scpt"),
    ("Eiffel", "--", "e"),
    ("TLA+", "\\*", "tla"),
    ("Lisp", ";", "lisp lsp cl asd el emacs ny sexp fnl hy janet"),
    ("Clojure", ";", "clj cljs cljc cljx cljscm boot bb"),
    ("Scheme, Racket", ";", "scm ss sch sld sls sps rkt rktl rktd scrbl"),
    ("assembly", ";", "asm s a51 nas nasm"),
    ("WebAssembly", ";;", "wat wast"),
    ("LLVM", ";", "ll"),
    ("NSIS, Inno Setup, AutoHotkey, AutoIt", ";", "nsi nsh iss isl ahk ahkl au3"),
    ("PureBasic, Red, NewLisp", ";", "pbi red reds reb nl"),
    ("Erlang", "%", "erl hrl escript xrl yrl"),
    ("Prolog", "%", "pro prolog yap"),
    ("MATLAB", "%", "matlab mlx"),
    ("OCaml", "(*", "ml mli ml4 mll mly eliom eliomi"),
    ("F#", "//", "fs fsi fsx"),
    ("Standard ML", "(*", "sml fun sig"),
    ("Isabelle, Mathematica", "(*", "thy wl wlt wls mathematica mt"),
    ("Pascal", "//", "pas dpr lpr pp dfm lfm"),
    ("Modula, Oberon", "(*", "mod2 ob2"),
    ("Visual Basic", "'", "vb vba vbs bas frm cls bi brs"),
    ("Fortran", "!", "f f77 f90 f95 f03 f08 f18 for fpp ftn fypp pf"),
    ("COBOL, ABAP", "*", "cob cbl cobol cpy ccp abap"),
    ("SAS, Stata", "*", "sas do ado doh ihlp mata matah"),
    ("Vim script", '"', "vim vmb"),
    ("Smalltalk", '"', "st"),
    ("Forth", "\\", "fth 4th forth frt fr"),
    ("Factor", "!", "factor"),
    ("APL", "⍝", "apl dyalog"),
    ("J", "NB.", "ijs"),
    ("batch files", "REM", "bat cmd"),
    ("Lex, Yacc", "//", "l lex y yy ypp yacc"),
    ("REXX, PL/I", "/*", "rexx rex pli pl1"),
    ("CSS", "/*", "css pcss postcss"),
    ("components", "<!--", "vue svelte astro"),
    ("Haml", "-#", "haml"),
    ("Pug", "//-", "pug jade"),
)
# Prose, data and mark-up are read only on request.
_ON_REQUEST = (
    ("Markdown, HTML, XML", "<!--", "md markdown html htm xhtml xml xsd xsl xslt svg"),
    ("YAML, TOML", "#", "yaml yml toml"),
    ("TeX", "%", "tex sty bib"),
    ("INI", ";", "ini cfg"),
    ("reStructuredText", "..", "rst"),
)
# Files that are named, not marked by an ending.
_NAMES = {
    "#": "makefile gnumakefile bsdmakefile kbuild dockerfile containerfile cmakelists.txt rakefile gemfile guardfile "
    "capfile berksfile brewfile cheffile dangerfile fastfile podfile puppetfile thorfile vagrantfile appraisals "
    "buildfile jarfile snakefile sconstruct sconscript wscript build build.bazel workspace workspace.bazel "
    "module.bazel tiltfile buck meson.build meson_options.txt procfile justfile cakefile rexfile makefile.pl "
    "makefile.am makefile.in configure.ac pkgbuild apkbuild nukefile snapfile earthfile",
    "//": "jenkinsfile jakefile go.mod",
    ";": "emakefile cask",
    "%": "rebar.config",
    '"': "vimrc gvimrc",
}
_CLOSE = {"(*": " *)", "<!--": " -->", "/*": " */"}


@functools.cache
def _marks() -> dict[str, str]:
    marks: dict[str, str] = {}
    for _, mark, endings in (*_LANGUAGES, *_ON_REQUEST):
        for ending in endings.split():
            marks.setdefault(f".{ending}", mark)
    return marks


@functools.cache
def _marks_of_names() -> dict[str, str]:
    return {name: mark for mark, names in _NAMES.items() for name in names.split()}


def ending_of(path: str) -> str:
    """Returns the ending of a path's name in small letters, with the dot; empty if there is none."""
    name = path.rsplit("/", 1)[-1]
    return f".{name.rsplit('.', 1)[-1].lower()}" if "." in name else ""


@functools.cache
def _default_endings() -> frozenset[str]:
    return frozenset(f".{ending}" for _, _, endings in _LANGUAGES for ending in endings.split())


def is_source(path: str) -> bool:
    """Returns whether a path is the source file of a programming language, judged by its ending or its name."""
    return ending_of(path) in _default_endings() or path.rsplit("/", 1)[-1].lower() in _marks_of_names()


def path_comment(path: str) -> str:
    """Returns the line that introduces a file: its path as a comment in the file's language."""
    mark = _marks_of_names().get(path.rsplit("/", 1)[-1].lower()) or _marks().get(ending_of(path), "#")
    return f"{mark} {path}{_CLOSE.get(mark, '')}\n"
