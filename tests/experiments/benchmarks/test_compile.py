"""`bench-compile` keeps every measurement, continues, and measures only the chosen rows."""

import json
import re

import pytest

from experiments.benchmarks import compile


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Returns a function that runs the benchmark; compiling takes the next of `times`."""
    output = tmp_path / "compile.json"

    def run(times: list[float], *arguments: str) -> tuple[int, dict[str, list[float]], str]:
        left = iter(times)
        monkeypatch.setattr(compile, "compile_once", lambda entry: {"seconds": next(left), "gigabytes": 4.0})
        monkeypatch.setattr(compile.importlib.metadata, "version", lambda _: "1.0")  # libtpu is not installed
        monkeypatch.setattr("sys.argv", ["compile", "--output", str(output), *arguments])
        with pytest.raises(SystemExit) as ended:
            compile.main()
        assert next(left, None) is None  # all were used
        code = ended.value.code
        assert isinstance(code, int)
        runs = json.loads(output.read_text())["runs"]
        return code, {row: [one["seconds"] for one in runs[row]] for row in runs}, capsys.readouterr().out

    return run


def test_chosen_rows_are_measured_and_the_others_kept(call):
    code, runs, printed = call([100, 190], "--rounds", "2", "--row", "xl_512")
    assert code == 0
    assert {row for row in runs if runs[row]} == {"xl_512"}
    assert re.search(r"xl_512, median of 2\W+145", printed)
    code, runs, _ = call([185], "--rounds", "1", "--row", "xl_512", "--row", "slide_12l")
    assert code == 1
    assert (runs["xl_512"], runs["slide_12l"]) == ([100, 190], [185])


def test_a_second_call_measures_what_is_missing(call):
    _, first, _ = call([50], "--rounds", "1", "--row", "slide_13l")
    rows = len(first)
    _, runs, _ = call([60] * (rows - 1), "--rounds", "1")
    assert runs == {row: [60] for row in first} | {"slide_13l": [50]}


def test_an_unknown_row_is_refused(call, capsys):
    with pytest.raises(FileNotFoundError):  # nothing was written
        call([], "--row", "xl_9")
    assert "invalid choice: 'xl_9'" in capsys.readouterr().err
