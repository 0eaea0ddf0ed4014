"""One run of a table: its commands, its progress and its result."""

import dataclasses
import datetime
import json
import os
import platform
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any, Literal

from etils import epath
from pyarrow import parquet

from block_recurrent.cli import gin_files
from block_recurrent.config import RunConfig
from block_recurrent.errors import InputError
from block_recurrent.evaluation.records import read
from block_recurrent.evaluation.results import Ablations, Scores
from block_recurrent.files import write_whole
from block_recurrent.model import flops
from block_recurrent.paper.reproduction import run_folder
from block_recurrent.paper.tables import PaperTable
from block_recurrent.training.metric_writer import read_metrics

State = Literal["finished", "evaluated", "started", "missing"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A model that is trained on a data set with one seed and evaluated.

    Attributes:
        row: name of the row; the first one if several rows share the run.
        gin_file: file of the model.
        data: data set, as the name of its file in `gin/data/`.
        split: split to evaluate.
        recipe: name of a file in `gin/recipes/`; None if `gin_file` contains the recipe.
        seed: of parameters, dropout and data order.
        params: additional `--gin-param` values.
        ablations: True if a row of the table needs `evaluate --ablations`.
        runs: folder of all runs.
        results: folder of the result files.
        stores: folder of the token stores, local or remote; None leaves the stores where the gin files have them.
    """

    row: str
    gin_file: str
    data: str
    split: str
    recipe: str | None
    seed: int
    params: tuple[str, ...]
    ablations: bool
    runs: epath.Path
    results: Path
    stores: str | None = None

    @property
    def workdir(self) -> epath.Path:
        return run_folder(self.runs, self.gin_file, self.data, self.seed)

    @property
    def result_path(self) -> Path:
        return self.results / f"{Path(self.gin_file).stem}_{self.data}_{self.seed}.json"

    @property
    def gin_file_names(self) -> list[str]:
        recipe = [] if self.recipe is None else [f"gin/recipes/{self.recipe}.gin"]
        return [self.gin_file, f"gin/data/{self.data}.gin", *recipe]

    @property
    def gin_params(self) -> list[str]:
        return [f"TrainConfig.seed={self.seed}", f"DataConfig.seed={self.seed}", *self.params]

    def config(self) -> RunConfig:
        """Returns the configuration of the run.

        Raises:
            InputError: the files and parameters are not a valid configuration.
        """
        gin_files.parse(self.gin_file_names, [*self.gin_params, *self._store_param])
        return gin_files.configured_run()

    @property
    def _store_param(self) -> list[str]:
        return [] if self.stores is None else [f"STORE={f'{self.stores}/{self.data}'!r}"]

    def commands(self) -> list[list[str]]:
        """Returns the commands `prepare`, `train` and `evaluate`.

        `prepare` does nothing if the store exists, and `train` continues from the newest checkpoint.
        """
        files = [word for name in self.gin_file_names for word in ("--gin-file", name)]
        params = [word for param in (*self.gin_params, *self._store_param) for word in ("--gin-param", param)]
        program = [sys.executable, "-m", "block_recurrent"]
        ablations = ["--ablations"] if self._needs_ablations() else []
        return [
            [*program, "prepare", *files, *params],
            [*program, "train", *files, *params, "--workdir", str(self.workdir)],
            [*program, "evaluate", "--workdir", str(self.workdir), "--split", self.split, *ablations],
        ]

    def finished(self) -> bool:
        """Returns whether the result file exists.

        Raises:
            InputError: the file contains the result of another experiment.
        """
        if not self.result_path.exists():
            return False
        found = json.loads(self.result_path.read_text())["experiment"]
        if found != self.identity():
            raise InputError(f"{self.result_path}: made by another experiment ({found}); choose other --results")
        return True

    def state(self) -> State:
        """Returns how far the run is; an `evaluated` one lacks only its result file.

        Raises:
            InputError: as in `finished`.
        """
        if self.finished():
            return "finished"
        if not self.workdir.exists():
            return "missing"
        done = (self.evaluation / (Ablations if self._needs_ablations() else Scores).FILE).exists()
        return "evaluated" if done else "started"

    @property
    def evaluation(self) -> epath.Path:
        """Folder in which `evaluate` writes the results of the last step."""
        run = self.config()
        store = Path(run.data.store).name
        return self.workdir / "evaluation" / store / self.split / f"step_{run.train.num_steps}"

    def identity(self) -> dict[str, Any]:
        """Returns everything that determines the numbers; the place of the store does not."""
        return {
            "gin_files": self.gin_file_names,
            "gin_params": self.gin_params,
            "split": self.split,
            "ablations": self.ablations,
        }

    def write_result(self, table: str) -> None:
        """Collects the results of the finished run in one small file, which appears whole or not at all.

        Args:
            table: name of the table.

        Raises:
            InputError: the last step has not been evaluated.
        """
        scores, ablations = read(Scores, self.evaluation), read(Ablations, self.evaluation)
        if scores is None:
            raise InputError(f"{self.evaluation}: no evaluation found; run {shlex.join(self.commands()[-1])}")
        documents = parquet.read_table(os.fspath(self.evaluation / "documents.parquet")).to_pydict()
        result = {
            "table": table,
            "row": self.row,
            "data": self.data,
            "seed": self.seed,
            "experiment": self.identity(),
            "commands": [shlex.join(["python", *command[1:]]) for command in self.commands()],
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "parameters": scores.subject.parameters,
            **self._training_facts(),
            "machine": {
                "cores": os.cpu_count(),
                "machine": platform.machine(),
                "devices": scores.provenance.devices,
                "versions": scores.provenance.versions,
            },
            "evaluation": {"store": scores.data.source, "split": self.split, **_score_facts(scores)},
            "ablations": {
                a.name: {"bits_per_byte": a.bits_per_byte.value, "cost_bits_per_byte": dataclasses.asdict(a.cost)}
                for a in (() if ablations is None else ablations.ablations)
            },
            "documents": {name: documents[name] for name in ("name", "bytes", "nats")},
            "learning_curve": self._learning_curve(),
        }
        self.results.mkdir(parents=True, exist_ok=True)
        write_whole(self.result_path, json.dumps(result, indent=1) + "\n")

    def _needs_ablations(self) -> bool:
        return self.ablations and bool(self.config().model.recurrent_layers)

    def _training_facts(self) -> dict[str, Any]:
        run = self.config()
        speed = [line["seconds_per_step"] for line in read_metrics(self.workdir) if line["group"] == "speed"]
        return {
            "training_flops_per_token": training_flops(run),
            "steps": run.train.num_steps,
            "tokens_trained": run.train.num_steps * run.tokens_per_step,
            "training_seconds": sum(speed) * run.train.log_every,
            "median_seconds_per_step": statistics.median(speed[1:] or speed),
        }

    def _learning_curve(self) -> list[dict[str, float]]:
        """Returns the evaluations during training, on the data set's held-out split for that."""
        run = self.config()
        return [
            {"tokens_trained": line["step"] * run.tokens_per_step, "bits_per_byte": line["bits_per_byte"]}
            for line in read_metrics(self.workdir)
            if line["group"] == run.data.eval_split
        ]


def training_flops(run: RunConfig) -> float:
    """Returns the FLOPs of training on one token."""
    return flops.training_flops(run.model, run.data.segment_length)


def _score_facts(scores: Scores) -> dict[str, Any]:
    return {
        "store_fingerprint": scores.data.fingerprint,
        "params_fingerprint": scores.subject.fingerprint,
        "documents": scores.documents,
        "scored_tokens": scores.tokens,
        "bytes": scores.bytes,
        "bits_per_token": dataclasses.asdict(scores.bits_per_token),
        "bits_per_byte": dataclasses.asdict(scores.bits_per_byte),
    }


def experiments(
    table: PaperTable,
    *,
    runs: epath.Path,
    results: Path,
    data: list[str] | None,
    recipe: str | None,
    seeds: dict[str, tuple[int, ...]],
    rows: str = "",
    params: tuple[str, ...] = (),
    stores: str | None = None,
) -> list[Experiment]:
    """Returns the runs of a table: all rows on the first data set, then on the next; each run once.

    Args:
        table: the table to fill.
        runs: folder of all runs.
        results: folder of the result files.
        data: names of files in `gin/data/`; None selects all columns of the table.
        recipe: name of a file in `gin/recipes/`, or None.
        seeds: seeds by row; a row that is not named has seed 0.
        rows: name of a row, or text that a row's name must contain.
        params: `--gin-param` values of all runs.
        stores: folder of the token stores; None leaves them where the gin files have them.

    Raises:
        InputError: the table has no such data set or row.
    """
    splits = {column.data: column.split or "" for column in table.columns if column.data is not None and column.split}
    unknown = sorted(set(data or ()) - set(splits))
    if unknown:
        raise InputError(f"--data {unknown[0]}: {table.name} has {', '.join(splits)}")
    gin_files_by_row = {row.name: row.gin_file for row in table.rows if row.gin_file is not None}
    selected = {name: file for name, file in gin_files_by_row.items() if rows.lower() == name.lower()}
    selected = selected or {name: file for name, file in gin_files_by_row.items() if rows.lower() in name.lower()}
    if not selected:
        raise InputError(f"--rows {rows}: {table.name} has {', '.join(gin_files_by_row)}")
    found: dict[tuple[str, str, int], Experiment] = {}
    ablated = {row.gin_file for row in table.rows if row.ablation}
    runs_of_table = [(d, row, seed) for d in data or splits for row in selected for seed in seeds.get(row, (0,))]
    for name, row, seed in runs_of_table:
        experiment = Experiment(
            row=row,
            gin_file=selected[row],
            data=name,
            split=splits[name],
            recipe=recipe,
            seed=seed,
            params=params,
            ablations=selected[row] in ablated,
            runs=runs,
            results=results,
            stores=stores,
        )
        found.setdefault((experiment.gin_file, name, seed), experiment)
    return list(found.values())
