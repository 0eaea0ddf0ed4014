"""Results of two runs with random losses, on documents with markup in their names and texts."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath

from block_recurrent.cli.main import main
from block_recurrent.config import PrepareConfig, RunConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.evaluation.ablations import AblationResults, contribution, plan
from block_recurrent.evaluation.compare import write_comparison
from block_recurrent.evaluation.provenance import describe_data
from block_recurrent.evaluation.records import Bootstrap, Estimate, Provenance, Subject, write
from block_recurrent.evaluation.results import (
    Ablations,
    Context,
    Curve,
    CurvePoint,
    Diagnostics,
    FixedGate,
    LayerDiagnostics,
    OfficialScores,
    Scores,
    StatePoint,
)
from block_recurrent.evaluation.run_results import ResultSet, read_results
from block_recurrent.evaluation.scores import by_position, summarise
from block_recurrent.evaluation.token_losses import TokenLosses, scored_starts
from block_recurrent.training.run_record import make_record, write_record
from tests.support.workdirs import run_config

HOSTILE = "</script><script>window.attacked = true</script><img src=x onerror='window.attacked = true'>"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A recurrent run with all studies, a run with only caches, and their comparison."""
    folder = tmp_path_factory.mktemp("report")
    store = TokenStore.open(_store(folder) / "validation")
    config = run_config(folder / "store")
    model = dataclasses.replace(config.model, recurrent_layers=(), num_states=0)
    written = _RandomResults(store)
    recurrent, slide, both = (epath.Path(folder / name) for name in ("recurrent <b>&", "slide", "both"))
    models = [written.run(slide, dataclasses.replace(config, model=model), 1), written.run(recurrent, config, 2)]
    written.studies(recurrent, config, *models[1])
    write_comparison(written.header, store, models, both)
    return [Path(path) for path in (recurrent, slide, both)]


@pytest.fixture(scope="session")
def results(folders: list[Path]) -> ResultSet:
    return read_results([epath.Path(folder) for folder in folders])


@pytest.fixture(scope="session")
def page(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report, written by the command line."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["block_recurrent", "report", *map(str, folders), "--out", str(path)])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert not stopped.value.code
    return path


def _store(folder: Path) -> Path:
    texts = [
        " ".join(f"{HOSTILE} Zürich {n} times {k} is {n * k}; said Anna{k}." for k in range(3 + n % 9))
        for n in range(12)
    ]
    lines = [json.dumps({"name": f"{HOSTILE} {n}", "text": text}) for n, text in enumerate(texts)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    source: Any = {"source": "jsonl", "input": str(folder / "texts.jsonl"), "name_field": "name", "workers": 1}
    prepare(PrepareConfig(**source, store=str(folder / "store"), validation_percent=30, test_percent=10))
    return folder / "store"


class _RandomResults:
    """Writes the files of `train` and `evaluate`, from random losses."""

    def __init__(self, store: TokenStore):
        self._store, self._random = store, np.random.default_rng(0)
        self.bootstrap = Bootstrap(replicates=50, level=0.95, seed=0)
        provenance = Provenance(
            command=("/somewhere/block_recurrent/__main__.py", "evaluate", "--workdir", HOSTILE),
            date="2026-01-01T00:00:00+00:00",
            versions={"jax": "0"},
            devices="1 x cpu",
            batch_size=3,
            segment_length=16,
        )
        self.header = {"data": describe_data(store), "provenance": provenance, "bootstrap": self.bootstrap}

    def run(self, folder: epath.Path, config: RunConfig, seed: int) -> tuple[Subject, TokenLosses]:
        folder.mkdir(parents=True)
        stores = [{"source": "jsonl", "split": "train", "fingerprint": "f" * 64,
                   "counts": {"documents": 7, "tokens": 7000}}]  # fmt: skip
        write_record(folder, make_record(config, {"stores": stores}))
        lines = [{"step": step, "group": "train", "bits_per_byte": 8 / (seed + step)} for step in range(1, 9)]
        lines.append({"step": 8, "group": "validation", "bits_per_byte": 0.9})
        lines += [{"step": step, "group": "speed", "tokens_per_second": 1000.0 * seed + step} for step in (2, 4, 6)]
        records = [{"prompt": 0, "error": "too long"}, {"prompt_text": HOSTILE, "text": " goes on"}]
        (folder / "samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        if config.model.recurrent_layers:  # the other run is one of a version without these lines
            lines += [self.state_report(step) for step in (4, 8)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        model = dataclasses.asdict(config.model)
        subject = Subject(name=folder.name, path=str(folder / "checkpoints" / "8"), step=8, fingerprint=f"{seed:064}",
                          parameters=1000 + seed, config=model)  # fmt: skip
        losses = self.losses()
        about = {**self.header, "subject": subject}
        write(Scores(**about, **summarise(self._store, losses, self.bootstrap)), self.place(folder))
        write(Context(**about, by_position=by_position(losses, self.bootstrap)), self.place(folder))
        return subject, losses

    def state_report(self, step: int) -> dict[str, Any]:
        names = ("contribution_bits_per_byte", "cost_bits_per_byte/reset")
        intervals = {f"{name}{end}": float(self._random.uniform()) for name in names for end in ("", "/low", "/high")}
        layer = {f"{name}/layer_01": float(self._random.uniform()) for name in ("states_share", "state_change")}
        half_lives = {f"half_life_tokens/layer_01/attention/p{p}": float(p + step) for p in (10, 50, 90, 99)}
        return {"step": step, "group": "states", "dead": int(step == 8), **intervals, **layer, **half_lives}

    def studies(self, folder: epath.Path, config: RunConfig, subject: Subject, losses: TokenLosses) -> None:
        about: Any = {**self.header, "subject": subject}
        place, ablations = self.place(folder), AblationResults(self._store, losses, self.bootstrap)
        planned, skipped = plan(config.model, self._store, reset_tokens=16, frozen_tokens=16)
        changed = [ablations.carried(), *(ablations.ablation(item, self.losses()) for item in planned)]
        contributed = contribution([(item, item.cost) for item in changed])
        write(Ablations(**about, ablations=tuple(changed), contribution=contributed, skipped=skipped), place)
        numbers = {"rows": 3, "segment_length": 16, "segments": 4, "passes": 0.5, "tokens": 180, "nats": 200.0}
        write(OfficialScores(**about, **numbers, bits_per_token=1.25, token_perplexity=3.5), place)
        half_lives = tuple(self._random.uniform(5, 500, 16).tolist())
        gate = FixedGate(place="attention", keep=(0.5,) * 16, half_life_tokens=half_lives)
        fields = [field.name for field in dataclasses.fields(StatePoint) if field.name != "position"]
        points = [
            StatePoint(position=8 * n, **{name: float(self._random.uniform()) for name in fields}) for n in range(500)
        ]
        layer = LayerDiagnostics(layer=1, fixed_gates=(gate,), lstm_gates=(), states=tuple(points))
        write(Diagnostics(**about, document=HOSTILE, tokens=4000, window_length=8, layers=(layer,)), place)
        estimate = Estimate(value=2.0, low=1.0, high=3.0)
        scores = dict.fromkeys(("bits_per_token", "bits_per_byte", "token_perplexity", "word_perplexity"), estimate)
        write(Curve(**about, points=tuple(CurvePoint(step=step, **scores) for step in (4, 8))), place.parent)

    def place(self, folder: epath.Path) -> epath.Path:
        return folder / "evaluation" / "store" / "validation" / "step_8"

    def losses(self) -> TokenLosses:
        starts = scored_starts(self._store.lengths)
        return TokenLosses(self._random.gamma(1, 1, starts[-1]).astype(np.float32), starts)
