"""The report page as a file: content, escaping, figure files and errors."""

import dataclasses
import html.parser
import json
import re
import struct
from xml.etree import ElementTree

import altair
import pytest
from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.evaluation.run_results import ResultSet, read_results
from block_recurrent.report import figures, formats
from block_recurrent.report.configs import settings
from block_recurrent.report.page import draw, render, write_report
from block_recurrent.report.passages import level, stretches
from block_recurrent.report.state_curves import state_curves
from tests.report.conftest import HOSTILE


class Text(html.parser.HTMLParser):
    """The visible text, the addresses and the elements of a page."""

    def __init__(self, content: str):
        super().__init__()
        self.text, self.addresses, self.elements, self._hidden = "", [], [], 0
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action")]
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._hidden:
            self.text += data


@pytest.fixture(scope="module")
def read(page) -> Text:
    return Text(page.read_text())


def test_the_page_shows_the_results_of_the_evaluations(results, read):
    text = " ".join(read.text.split())
    for run in results.runs:
        (evaluated,) = run.evaluations
        assert f"{evaluated.scores.bits_per_byte.value:,.4f}" in text
        assert formats.perplexity(evaluated.scores.word_perplexity.value) in text
        assert evaluated.scores.data.fingerprint in text
        assert evaluated.scores.subject.fingerprint in text
    (studied,) = results.runs[0].evaluations
    assert studied.ablations is not None
    assert studied.ablations.contribution.text.replace("`", "") in text
    assert studied.official is not None
    assert f"{studied.official.bits_per_token:,.4f} bits per token" in text
    (comparison,) = results.comparisons
    assert all(word.text in text for word in comparison.differences[0].words.top)
    assert "not exact" in text
    assert "model.recurrent_layers" in text


def test_cards_say_what_each_model_is(read):
    text = " ".join(read.text.split())
    shape = "2 layers of width 16window of 8 tokens"
    assert f"1,002 parametersstep 8 of 10{shape}4 state vectors in layer 1 (fixed gate)" in text
    assert f"1,001 parametersstep 8 of 10{shape}no recurrent layer" in text
    assert "trained at 2,004 tokens per second (median)" in text


def test_samples_are_shown_as_text(results, read):
    assert [sample.text for sample in results.runs[0].samples] == [" goes on"]
    assert f"{HOSTILE} goes on" in read.text


def test_a_control_is_called_so(results, tmp_path):
    (evaluated,) = results.runs[0].evaluations
    subject = dataclasses.replace(evaluated.scores.subject, control="random cells")
    scores = dataclasses.replace(evaluated.scores, subject=subject)
    run = dataclasses.replace(results.runs[0], evaluations=(dataclasses.replace(evaluated, scores=scores),))
    text = rendered(ResultSet(runs=(run,), comparisons=()))
    assert "control: random cells" in Text(text).text


def test_one_run_needs_no_filter(results):
    alone = Text(rendered(ResultSet(runs=results.runs[:1], comparisons=())))
    both = Text(rendered(results))
    assert ["hidden" in attrs for page in (alone, both) for _, attrs in page.elements if attrs.get("id") == "runs"] == [
        True,
        False,
    ]


def test_the_paper_s_table_is_folded_without_data_of_the_paper(results):
    folds = [attrs for _, attrs in Text(rendered(results)).elements if attrs.get("class") == "fold"]
    assert ["open" in attrs for attrs in folds] == [False]
    run = results.runs[0]
    (evaluated,) = run.evaluations
    data = dataclasses.replace(evaluated.scores.data, paper_column="PG19 tokens")
    moved = dataclasses.replace(evaluated, scores=dataclasses.replace(evaluated.scores, data=data))
    comparable = ResultSet(runs=(dataclasses.replace(run, evaluations=(moved,)),), comparisons=())
    folds = [attrs for _, attrs in Text(rendered(comparable)).elements if attrs.get("class") == "fold"]
    assert ["open" in attrs for attrs in folds] == [True]


def test_the_page_is_one_file_that_needs_no_network(read):
    assert [a for a in read.addresses if not a.startswith(("#", "report_figures/"))] == []
    policy = next(attrs["content"] for tag, attrs in read.elements if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_names_and_text_cannot_become_markup(read):
    assert HOSTILE in read.text  # as text: names of documents
    assert [tag for tag, _ in read.elements if tag in ("img", "b")] == []
    assert len([tag for tag, _ in read.elements if tag == "script"]) == 4
    assert not any(name.startswith("on") for _, attrs in read.elements for name in attrs)


def test_the_page_is_accessible_without_colours_or_a_mouse(read):
    tables = [attrs for tag, attrs in read.elements if tag == "table"]
    assert len(tables) == len([1 for tag, _ in read.elements if tag == "caption"]) > 4
    plots = [attrs for _, attrs in read.elements if "data-figure" in attrs]
    assert len(plots) >= 10
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 40 for attrs in plots)
    assert all("tabindex" in attrs for _, attrs in read.elements if attrs.get("class") == "scroll")
    identifiers = [attrs["id"] for _, attrs in read.elements if "id" in attrs]
    assert len(set(identifiers)) == len(identifiers)


def test_figures_are_next_to_the_page_as_png_and_svg(results, page, read):
    names = {figure.name for figure in draw(results)}
    wanted = {
        "learning",
        "learning_contribution",
        "learning_half_lives",
        "learning_states_share",
        "learning_state_change",
        "throughput",
        "position",
        "improvement",
        "checkpoints",
        "ablations",
        "distance",
        "half_lives",
        "states_norm",
    }
    assert wanted <= names
    folder = page.parent / "report_figures"
    assert {path.name for path in folder.iterdir()} == {f"{n}.{ending}" for n in names for ending in ("png", "svg")}
    for name in names:
        content = (folder / f"{name}.png").read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", content[16:24])
        assert width > 1000 < 5 * height
        assert len(ElementTree.parse(folder / f"{name}.svg").getroot()) > 0
    linked = {address for address in read.addresses if address.startswith("report_figures/")}
    assert linked == {f"report_figures/{path.name}" for path in folder.iterdir()}


def test_figures_contain_the_numbers_of_the_results(results):
    (evaluated,) = results.runs[0].evaluations
    position = figures.position(results, results.data[0])
    assert position is not None
    rows = _rows(position.spec)
    mine = [row for row in rows if row["run"] == results.runs[0].name]
    assert evaluated.context is not None
    assert [row["value"] for row in mine] == [b.bits_per_token.value for b in evaluated.context.by_position]
    assert position.spec["$schema"].split("/v")[-1] == f"{altair.SCHEMA_VERSION[1:]}.json"


def test_state_reports_become_curves_over_the_training_tokens_and_name_dead_states(results, read):
    drawn = {figure.name: figure for figure in state_curves(results)}
    run = results.runs[0]
    lines = [line for line in run.metrics if line["group"] == "states"]
    assert all(figure.runs == (run.name,) for figure in drawn.values())  # the other run has no such lines
    rows = _rows(drawn["learning_contribution"].spec)
    assert [row["trained"] for row in rows] == [4 * 3 * 16] * 2 + [8 * 3 * 16] * 2  # steps x rows x tokens
    for what, name in (
        ("contribution", "contribution_bits_per_byte"),
        ("reset at every segment", "cost_bits_per_byte/reset"),
    ):
        mine = [row for row in rows if row["what"] == what]
        assert [row["value"] for row in mine] == [line[name] for line in lines]
        assert [row["high"] for row in mine] == [line[f"{name}/high"] for line in lines]
    half_lives = _rows(drawn["learning_half_lives"].spec)
    assert {(row["channels"], row["step"], row["value"]) for row in half_lives} == {
        (f"{p} %", step, p + step) for p in (10, 50, 90, 99) for step in (4, 8)
    }
    assert f"{run.name}: the recurrent state is dead at step 8" in read.text


def test_the_script_has_the_version_of_the_specifications():
    from block_recurrent.report import pictures

    assert altair.SCHEMA_VERSION.startswith(f"v{pictures._VEGA_LITE}.")
    assert "</script" not in pictures.embedding_script().lower()


def test_settings_that_differ_are_marked(results):
    found = {setting.name: setting for setting in settings(results.runs)}
    assert {name for name, setting in found.items() if setting.differs} == {
        "model.recurrent_layers",
        "model.num_states",
    }
    assert found["model.num_states"].values == ("4", "0")


def test_passages_are_the_document_s_text_with_the_word_marked(results):
    (comparison,) = results.comparisons
    for word in comparison.differences[0].words.top:
        pieces = stretches(word)
        text = "".join(piece.text for piece in pieces)
        assert text == "".join(token.text for token in word.passage)
        assert "".join(piece.text for piece in pieces if piece.word).strip() == word.text
        assert "\N{REPLACEMENT CHARACTER}" not in text  # ü is two tokens here
    assert [level(bits) for bits in (0.4, 0.5, -1.0, 3.9, -40.0)] == [0, 1, -2, 3, -4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nothing to report; name the folder of a run"),
        ([".", "."], "is named twice"),
    ],
)
def test_mistakes_are_one_clear_error(tmp_path, arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_results([epath.Path(tmp_path / argument) for argument in arguments])


def test_the_page_must_be_html_and_a_failure_leaves_no_file(results, tmp_path):
    with pytest.raises(InputError, match=r"must end in \.html"):
        write_report(results, epath.Path(tmp_path / "report.pdf"))
    assert not list(tmp_path.iterdir())


def test_a_run_without_evaluation_shows_the_command_to_evaluate(folders, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("run.json", "metrics.jsonl"):
        (bare / name).write_bytes((folders[0] / name).read_bytes())
    write_report(read_results([epath.Path(bare)]), epath.Path(tmp_path / "page.html"))
    text = Text((tmp_path / "page.html").read_text()).text
    assert "bare has not been evaluated" in text
    assert "Learning curves" in text


def rendered(results: ResultSet) -> str:
    return render(results, draw(results), pictures="figures")


def _rows(spec: dict) -> list[dict]:
    return next(iter(spec["datasets"].values())) if "datasets" in spec else _values(spec)


def _values(spec: dict) -> list[dict]:
    found = [spec.get("data", {})] + [layer.get("data", {}) for layer in spec.get("layer", [])]
    return json.loads(json.dumps(next(data["values"] for data in found if len(data.get("values", [])) > 1)))
