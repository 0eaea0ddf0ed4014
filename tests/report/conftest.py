"""A report on two tiny runs, one of them with hostile names and text, and on their comparison."""

import dataclasses
import json
from pathlib import Path

import pytest
from etils import epath

from block_recurrent.config import PrepareConfig
from block_recurrent.data.prepare import prepare
from block_recurrent.main import main
from block_recurrent.report.gather import Gathered, gather
from block_recurrent.train import train
from tests.workdirs import QUIET, run_config

HOSTILE = "</script><script>window.attacked = true</script><img src=x onerror='window.attacked = true'>"


def shell(*arguments: object) -> None:
    """Runs a command, which has to succeed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["block_recurrent", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert not stopped.value.code


def hostile_store(folder: Path) -> Path:
    """Documents whose names and text are markup."""
    texts = [
        " ".join(f"{HOSTILE} Zürich {n} times {k} is {n * k}; said Anna{k}." for k in range(3 + n % 3))
        for n in range(12)
    ]
    lines = [json.dumps({"name": f"{HOSTILE} {n}", "text": text}) for n, text in enumerate(texts)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    source: dict = {"source": "jsonl", "input": str(folder / "texts.jsonl"), "name_field": "name", "workers": 1}
    prepare(PrepareConfig(**source, store=str(folder / "store"), validation_percent=30, test_percent=10))
    return folder / "store"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A recurrent run and one with caches alone, evaluated with all studies, and their comparison."""
    folder = tmp_path_factory.mktemp("report")
    config = run_config(hostile_store(folder), num_steps=4, checkpoint_every=2, eval_every=2)
    caches_alone = dataclasses.replace(config.model, recurrent_layers=(), num_states=0)
    recurrent, slide, both = folder / "recurrent <b>&", folder / "slide", folder / "both"
    train(config, epath.Path(recurrent), QUIET)
    train(dataclasses.replace(config, model=caches_alone), epath.Path(slide), QUIET)
    few = ("--gin_param", "EvaluationConfig.bootstrap_replicates=50")
    for run in (recurrent, slide):
        shell("evaluate", "--workdir", run, "--official", "--ablations", "--diagnostics", *few)
    shell("evaluate", "--workdir", recurrent, "--all-checkpoints", *few)
    shell("compare", slide, recurrent, "--out", both, *few)
    return [recurrent, slide, both]


@pytest.fixture(scope="session")
def gathered(folders: list[Path]) -> Gathered:
    return gather([epath.Path(folder) for folder in folders])


@pytest.fixture(scope="session")
def page(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report, written by the command line."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    shell("report", *folders, "--out", path)
    return path
