"""`evaluate` and `compare` from the command line: files and errors."""

import dataclasses
import math

import jax
import pytest
from etils import epath
from pyarrow import parquet

from block_recurrent.evaluation.comparison_results import Comparison
from block_recurrent.evaluation.records import read
from block_recurrent.evaluation.results import Ablations, Context, Curve, Diagnostics, OfficialScores, Scores
from block_recurrent.evaluation.run_results import read_results
from block_recurrent.training.loop import train
from block_recurrent.training.saved_run import SavedRun
from experiments.studies.random_cell import with_random_cells
from tests.cli.test_main import command  # noqa: F401
from tests.data.conftest import model_path  # noqa: F401
from tests.support.workdirs import QUIET, prepare_store, run_config

SEGMENT = 16


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, store_folder):
    """A run with checkpoints at steps 2 and 4."""
    folder = tmp_path_factory.mktemp("run") / "work"
    train(run_config(store_folder, num_steps=4, checkpoint_every=2, eval_every=4), epath.Path(folder), QUIET)
    return folder


def silenced(saved):
    """Returns parameters whose attention to states adds nothing, so that no state has an effect."""
    params = jax.tree.map(lambda x: x, saved.params)
    kernel = params["layers"]["layer_01"]["tokens"]["output"]["kernel"]
    params["layers"]["layer_01"]["tokens"]["output"]["kernel"] = kernel.at[kernel.shape[0] // 2 :].set(0)
    return params


def random_cell(saved):
    """Returns parameters with a random, untrained cell."""
    return with_random_cells(saved, seed=1)


@pytest.fixture(scope="module", params=[silenced, random_cell])
def export(request, tmp_path_factory, workdir):
    """An export of the newest parameters, changed so that the states cannot help."""
    saved = SavedRun.load(epath.Path(workdir))
    folder = epath.Path(tmp_path_factory.mktemp("export") / "dead")
    dataclasses.replace(saved, params=request.param(saved)).export(folder)
    return folder


@pytest.mark.slow
def test_all_studies_of_one_run(command, workdir):  # noqa: F811
    arguments = ("--workdir", workdir, "--split", "test", "--tokens", "--official", "--ablations", "--diagnostics")
    code, out, err = command("evaluate", *arguments)
    assert code == 0, err
    folder = epath.Path(workdir) / "evaluation" / "store" / "test" / "step_4"
    scores, context = read(Scores, folder), read(Context, folder)
    ablations, official = read(Ablations, folder), read(OfficialScores, folder)
    diagnostics = read(Diagnostics, folder)
    assert scores is not None
    assert context is not None
    assert ablations is not None
    assert official is not None
    assert diagnostics is not None
    assert f"{scores.bits_per_byte.value:,.4f}" in out
    assert ablations.contribution.text in out
    assert "not exact" in out

    documents = parquet.read_table(folder / "documents.parquet").to_pydict()
    tokens = parquet.read_table(folder / "tokens.parquet").to_pydict()
    assert sum(documents["nats"]) == pytest.approx(scores.nats)
    assert sum(tokens["nats"]) == pytest.approx(scores.nats, rel=1e-6)
    assert len(tokens["nats"]) == sum(documents["tokens"]) == scores.tokens
    first = [n for d, n in zip(tokens["document"], tokens["nats"], strict=True) if d == documents["document"][0]]
    assert sum(first) == pytest.approx(documents["nats"][0], rel=1e-5)
    assert tokens["position"][: len(first)] == list(range(1, len(first) + 1))
    assert sum(b.tokens for b in context.by_position) == scores.tokens
    assert scores.bits_per_byte.value == pytest.approx(scores.nats / math.log(2) / scores.bytes)

    columns = parquet.read_table(folder / "ablations.parquet").to_pydict()
    by_name = {item.name: item for item in ablations.ablations}
    assert list(by_name) == ["carried", "reset", "frozen", "initial", "window_only", "shuffled"]
    assert by_name["reset"].after_tokens == SEGMENT
    for name, item in by_name.items():
        assert sum(columns[name]) == pytest.approx(item.nats)
        cost = (item.nats - scores.nats) / math.log(2) / scores.bytes
        assert item.cost.value == pytest.approx(cost, abs=1e-6)
    assert sum(b.tokens for b in by_name["reset"].by_distance) == scores.tokens
    assert len(diagnostics.layers) == 1
    assert len(diagnostics.layers[0].fixed_gates[0].keep) == 16

    # The second evaluation reads the token losses of the first and has the same scores.
    again = command("evaluate", *arguments[:4])
    assert again[0] == 0
    renewed = read(Scores, folder)
    assert renewed is not None
    assert renewed.nats == scores.nats


def test_a_limited_evaluation_scores_a_part_exactly_and_says_so_everywhere(command, workdir, tmp_path):  # noqa: F811
    whole = command("evaluate", "--workdir", workdir, "--split", "test", "--tokens", "--out", tmp_path / "whole")
    assert whole[0] == 0, whole[2]
    limits = ("--max-documents", 3, "--max-tokens", 40)
    code, out, err = command("evaluate", "--workdir", workdir, "--split", "test", "--tokens", *limits)
    assert code == 0, err
    assert "(partial)" in out
    assert "40 scored tokens" in " ".join(out.split())
    folder = epath.Path(workdir) / "evaluation" / "store" / "test" / "step_4_max_3_documents_max_40_tokens"
    scores = read(Scores, folder)
    assert scores is not None
    assert scores.tokens == 40
    assert scores.data.part is not None
    assert scores.data.label == "jsonl (partial)"

    # Every token has the loss that it has in the evaluation of the whole split.
    names = {
        row["name"]: row["document"] for row in parquet.read_table(tmp_path / "whole/documents.parquet").to_pylist()
    }
    losses = {
        (row["document"], row["position"]): row["nats"]
        for row in parquet.read_table(tmp_path / "whole/tokens.parquet").to_pylist()
    }
    own = {row["document"]: row["name"] for row in parquet.read_table(folder / "documents.parquet").to_pylist()}
    rows = parquet.read_table(folder / "tokens.parquet").to_pylist()
    assert len(rows) == 40
    for row in rows:
        assert row["nats"] == pytest.approx(losses[names[own[row["document"]]], row["position"]], abs=1e-5)

    compared = command(
        "compare", workdir, f"{workdir}/checkpoints/2", "--split", "test", "--out", tmp_path / "c", *limits
    )
    assert compared[0] == 0, compared[2]
    comparison = read(Comparison, epath.Path(tmp_path / "c"))
    assert comparison is not None
    assert comparison.data.fingerprint == scores.data.fingerprint
    assert comparison.tokens == 40
    assert "partial" in compared[1]
    assert "limit of documents" in command.error("evaluate", "--workdir", workdir, "--all-checkpoints", *limits)
    assert "max_tokens = 0" in command.error("evaluate", "--workdir", workdir, "--max-tokens", 0)


@pytest.mark.slow
def test_a_report_prefers_the_whole_split_and_labels_a_part(command, store_folder, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    train(run_config(store_folder, num_steps=2, checkpoint_every=2, eval_every=2), epath.Path(run), QUIET)
    assert command("evaluate", "--workdir", run, "--split", "test", "--max-documents", 3)[0] == 0
    (part,) = read_results([epath.Path(run)]).runs[0].evaluations
    assert part.scores.data.part is not None
    assert command("report", run, "--out", tmp_path / "part.html")[0] == 0
    page = (tmp_path / "part.html").read_text()
    assert ">partial</strong>" in page
    assert "whole split" not in page
    assert command("evaluate", "--workdir", run, "--split", "test")[0] == 0
    (whole,) = read_results([epath.Path(run)]).runs[0].evaluations
    assert whole.scores.data.part is None


def test_a_state_without_effect_prints_a_warning(command, export, store_folder, request):  # noqa: F811
    bindings = {"store": str(store_folder), "segment_length": SEGMENT, "batch_size": 4}
    params = [x for name, value in bindings.items() for x in ("--gin-param", f"DataConfig.{name}={value!r}")]
    code, out, err = command("evaluate", "--checkpoint", export, "--split", "test", "--ablations", *params)
    assert code == 0, err
    assert "warning: state contributes 0.00 bits" in out
    study = read(Ablations, export / "evaluation" / "store" / "test" / "step_4")
    assert study is not None
    assert study.contribution.verdict == "nothing"
    assert study.contribution.bits_per_byte is not None
    assert study.contribution.bits_per_byte.low is not None
    assert study.contribution.bits_per_byte.low <= 0
    if request.node.callspec.params["export"] is silenced:
        assert study.contribution.bits_per_byte.value == pytest.approx(0, abs=1e-6)
    message = command.error("evaluate", "--checkpoint", export, "--split", "test")
    assert "DataConfig: store not given" in message  # an export has the batch shape of training


def test_all_checkpoints_are_scored_into_a_curve(command, workdir):  # noqa: F811
    code, out, _ = command("evaluate", "--workdir", workdir, "--all-checkpoints")
    assert code == 0
    curve = read(Curve, epath.Path(workdir) / "evaluation" / "store" / "validation")
    assert curve is not None
    assert [point.step for point in curve.points] == [2, 4]
    assert f"{curve.points[0].bits_per_byte.value:.4f}" in out
    one = command("evaluate", "--checkpoint", workdir / "checkpoints" / "2")
    assert one[0] == 0
    scores = read(Scores, epath.Path(workdir) / "evaluation" / "store" / "validation" / "step_2")
    assert scores is not None
    assert scores.bits_per_byte == curve.points[0].bits_per_byte


def test_comparison_of_two_checkpoints(command, workdir, tmp_path):  # noqa: F811
    paths = (workdir / "checkpoints" / "2", workdir)
    removed = ("--gin-param", "EvaluationConfig.top_words=20")  # still accepted at its old default
    code, out, err = command("compare", *paths, "--split", "test", "--out", tmp_path / "both", *removed)
    assert code == 0, err
    result = read(Comparison, epath.Path(tmp_path / "both"))
    assert result is not None
    (difference,) = result.differences
    columns = parquet.read_table(tmp_path / "both" / "comparison.parquet").to_pydict()
    saved = [a - b for a, b in zip(columns["nats_0"], columns["nats_1"], strict=True)]
    assert difference.improvement_per_token.value == pytest.approx(sum(saved) / math.log(2) / result.tokens, rel=1e-5)
    assert difference.documents_better == sum(s > 0 for s in saved)
    assert (result.baseline.step, difference.subject.step) == (2, 4)
    assert len({word.document for word in difference.words.sampled}) == min(5, result.documents)
    assert sum(group.words for group in difference.words.groups) > 100
    best = difference.words.top[0]
    assert best.improvement == max(word.improvement for word in difference.words.top)
    inside = best.position - best.passage_start
    piece = best.passage[inside : inside + len(best.text)]  # bytes are tokens here
    assert "".join(token.text for token in piece) == best.text
    assert sum(token.bits for token in piece) == pytest.approx(best.improvement, rel=1e-4)
    assert "what improves" in out
    # The report contains the comparison.
    code, out, err = command("report", workdir, tmp_path / "both", "--out", tmp_path / "page.html")
    assert code == 0, err
    assert "page_figures" in out
    assert f"{difference.improvement_per_byte.value:,.4f}" in (tmp_path / "page.html").read_text()
    assert list((tmp_path / "page_figures").glob("improvement*.svg"))
    assert "nothing to report" in command.error("report", tmp_path, "--out", tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()
    # The opposite order changes all signs.
    assert command("compare", *paths[::-1], "--split", "test", "--out", tmp_path / "back")[0] == 0
    back = read(Comparison, epath.Path(tmp_path / "back"))
    assert back is not None
    assert back.differences[0].improvement_per_token.value == -difference.improvement_per_token.value
    assert back.differences[0].p_value == difference.p_value


def test_a_store_of_another_vocabulary_is_refused(command, workdir, tmp_path, model_path):  # noqa: F811
    from block_recurrent.config import PrepareConfig
    from block_recurrent.data.preparation.prepare import prepare

    prepare_store(tmp_path)
    other = tmp_path / "pieces"
    source: dict = {"source": "jsonl", "input": str(tmp_path / "texts.jsonl"), "name_field": "name", "workers": 1}
    prepare(PrepareConfig(**source, store=str(other), vocabulary=model_path, test_percent=20))
    binding = f"DataConfig.store='{other}'"
    message = command.error("evaluate", "--workdir", workdir, "--split", "test", "--gin-param", binding)
    assert "created with vocabulary" in message
    assert "the model was trained with" in message
    assert not list(epath.Path(workdir).glob("evaluation/pieces*"))
    message = command.error("compare", workdir, workdir, "--out", tmp_path / "x", "--gin-param", binding)
    assert "created with vocabulary" in message
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --workdir or --checkpoint"),
        (["--checkpoint", "nowhere/checkpoints/3"], "no run is there"),
        (["--split", "dev"], "dev"),
        (["--gin-param", "DataConfig.segment_length=12"], "must be a multiple of the model's window"),
        (["--gin-param", "EvaluationConfig.bootstrap_level=1.5"], "EvaluationConfig.bootstrap_level = 1.5"),
        (
            ["--gin-param", "EvaluationConfig.top_words=5"],
            "EvaluationConfig.top_words = 5: removed; it is now always 20",
        ),
        (["--all-checkpoints", "--ablations"], "--all-checkpoints: goes with"),
    ],
)
def test_mistakes_are_one_clear_error(command, workdir, arguments, message):  # noqa: F811
    where = [] if not arguments or "--checkpoint" in arguments else ["--workdir", workdir]
    assert message in command.error("evaluate", *where, *arguments)


def test_a_damaged_result_is_named_in_the_error(workdir, tmp_path):
    (tmp_path / "scores.json").write_text('{"format_version": 1}')
    with pytest.raises(Exception, match=r"scores.json: damaged"):
        read(Scores, epath.Path(tmp_path))
    assert read(Curve, epath.Path(tmp_path)) is None
