"""One run of a table: its commands, how far it is, and the result that it leaves."""

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
from block_recurrent.model.flops import TRAINING_FACTOR, forward_flops
from block_recurrent.paper.reproduction import run_folder
from block_recurrent.paper.tables import PaperTable
from block_recurrent.training.metric_writer import read_metrics

State = Literal["finished", "evaluated", "begun", "missing"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A model to be trained on a data set with a seed, and evaluated.

    Attributes:
        row: name of the row; of several that share the run, the first.
        gin_file: of the model.
        data: of the data set, by its file in `gin/data/`.
        split: to evaluate on.
        recipe: file in `gin/recipes/`; None where the experiment file has one itself.
        seed: of parameters, dropout and data order.
        params: `--gin_param`s on top.
        ablations: whether a row of the table needs `evaluate --ablations`.
        runs: folder of all runs.
        results: folder of the results.
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
        """What is trained.

        Raises:
            InputError: files and parameters do not make a run.
        """
        gin_files.parse(self.gin_file_names, self.gin_params)
        return gin_files.configured_run()

    def commands(self) -> list[list[str]]:
        """`prepare`, which does nothing where the store is there; `train`, which goes on; `evaluate`."""
        files = [word for name in self.gin_file_names for word in ("--gin_file", name)]
        params = [word for param in self.gin_params for word in ("--gin_param", param)]
        program = [sys.executable, "-m", "block_recurrent"]
        study = ["--ablations"] if self._studied() else []
        evaluate = ["evaluate", "--workdir", str(self.workdir), "--split", self.split, *study]
        return [
            [*program, "prepare", *files, *params],
            [*program, "train", *files, *params, "--workdir", str(self.workdir)],
            [*program, *evaluate],
        ]

    def finished(self) -> bool:
        """Whether its result is there.

        Raises:
            InputError: there is a result of something else under this name.
        """
        if not self.result_path.exists():
            return False
        made = json.loads(self.result_path.read_text())["experiment"]
        if made != self.identity():
            raise InputError(f"{self.result_path}: made by another experiment ({made}); choose other --results")
        return True

    def state(self) -> State:
        """How far it is: `evaluated` has everything but the result file.

        Raises:
            InputError: as in `finished`.
        """
        if self.finished():
            return "finished"
        if not self.workdir.exists():
            return "missing"
        done = (self.evaluation / (Ablations if self._studied() else Scores).FILE).exists()
        return "evaluated" if done else "begun"

    @property
    def evaluation(self) -> epath.Path:
        """Where `evaluate` writes what it found of the last step."""
        run = self.config()
        store = Path(run.data.store).name
        return self.workdir / "evaluation" / store / self.split / f"step_{run.train.num_steps}"

    def identity(self) -> dict[str, Any]:
        """What decides the numbers."""
        return {
            "gin_files": self.gin_file_names,
            "gin_params": self.gin_params,
            "split": self.split,
            "ablations": self.ablations,
        }

    def _studied(self) -> bool:
        return self.ablations and bool(self.config().model.recurrent_layers)

    def write_result(self, table: str) -> None:
        """Gathers what the finished run has left into one small file, written in one move.

        Raises:
            InputError: the run has no evaluation of its last step.
        """
        run, folder = self.config(), self.evaluation
        scores, study = read(Scores, folder), read(Ablations, folder)
        if scores is None:
            raise InputError(f"{folder}: no evaluation is there")
        documents = parquet.read_table(os.fspath(folder / "documents.parquet")).to_pydict()
        speed = [line["seconds_per_step"] for line in read_metrics(self.workdir) if line["group"] == "speed"]
        flops = TRAINING_FACTOR * sum(forward_flops(run.model, run.data.segment_length).values())
        result = {
            "table": table,
            "row": self.row,
            "data": self.data,
            "seed": self.seed,
            "experiment": self.identity(),
            "commands": [shlex.join(["python", *command[1:]]) for command in self.commands()],
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "parameters": scores.subject.parameters,
            "training_flops_per_token": flops,
            "steps": run.train.num_steps,
            "tokens_trained": run.train.num_steps * run.data.batch_size * run.data.segment_length,
            "training_seconds": sum(speed) * run.train.log_every,
            "median_seconds_per_step": statistics.median(speed[1:] or speed),
            "machine": {
                "cores": os.cpu_count(),
                "machine": platform.machine(),
                "devices": scores.provenance.devices,
                "versions": scores.provenance.versions,
            },
            "evaluation": {
                "store": scores.data.source,
                "split": self.split,
                "store_fingerprint": scores.data.fingerprint,
                "params_fingerprint": scores.subject.fingerprint,
                "documents": scores.documents,
                "scored_tokens": scores.tokens,
                "bytes": scores.bytes,
                "bits_per_token": dataclasses.asdict(scores.bits_per_token),
                "bits_per_byte": dataclasses.asdict(scores.bits_per_byte),
            },
            "ablations": {
                a.name: {"bits_per_byte": a.bits_per_byte.value, "cost_bits_per_byte": dataclasses.asdict(a.cost)}
                for a in (() if study is None else study.ablations)
            },
            "documents": {name: documents[name] for name in ("name", "bytes", "nats")},
        }
        self.results.mkdir(parents=True, exist_ok=True)
        partial = self.result_path.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n")
        partial.replace(self.result_path)


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
) -> list[Experiment]:
    """The runs of a table, in its order: all rows on one data set, then the next; each run once.

    Args:
        table: what to fill.
        runs: folder of all runs.
        results: folder of the results.
        data: the data sets, by their files in `gin/data/`; None means all columns of the table.
        recipe: file in `gin/recipes/`, or None.
        seeds: by row; rows that are not named have seed 0.
        rows: only rows whose name holds this text.
        params: `--gin_param`s for all of them.

    Raises:
        InputError: a data set or text that no column or row has.
    """
    splits = {column.data: column.split for column in table.columns if column.data is not None and column.split}
    unknown = sorted(set(data or ()) - set(splits))
    if unknown:
        raise InputError(f"--data {unknown[0]}: {table.name} has {', '.join(splits)}")
    trained = [row for row in table.rows if row.gin_file is not None and rows.lower() in row.name.lower()]
    if not trained:
        raise InputError(f"--rows {rows}: {table.name} has {', '.join(row.name for row in table.rows if row.gin_file)}")
    found: dict[tuple[str, str, int], Experiment] = {}
    ablated = {row.gin_file for row in table.rows if row.ablation}
    for name in data or splits:
        for row in trained:
            assert row.gin_file is not None
            for seed in seeds.get(row.name, (0,)):
                experiment = Experiment(
                    row=row.name,
                    gin_file=row.gin_file,
                    data=name,
                    split=splits[name] or "",
                    recipe=recipe,
                    seed=seed,
                    params=params,
                    ablations=row.gin_file in ablated,
                    runs=runs,
                    results=results,
                )
                found.setdefault((row.gin_file, name, seed), experiment)
    return list(found.values())
