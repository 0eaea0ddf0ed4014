"""`evaluate`."""

import dataclasses
import json
from typing import Annotated

import typer

from block_recurrent import gin_files
from block_recurrent.commands.options import CONSOLE, GinFiles, GinParams, Workdir, absolute
from block_recurrent.config import DataConfig, MeshConfig


def evaluate(
    workdir: Workdir,
    split: Annotated[str, typer.Option("--split", help="Which split of the prepared store.")] = "validation",
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
) -> None:
    """Score a whole split exactly: every token after a document's first, once.

    The run's own data is used unless --gin_file or --gin_param bind DataConfig.
    Writes evaluation_SPLIT.json into the workdir.

    Example: python -m block_recurrent evaluate --workdir runs/quickstart --split test
    """
    from block_recurrent import console
    from block_recurrent.data.split import open_split
    from block_recurrent.evaluate import evaluate as evaluate_split
    from block_recurrent.partitioning import make_mesh
    from block_recurrent.progress import Progress
    from block_recurrent.saved_run import SavedRun

    gin_files.parse(gin_file, gin_param)
    saved = SavedRun.load(absolute(workdir))
    model, data = saved.config.model, dataclasses.replace(saved.config.data, **gin_files.bindings(DataConfig))
    store = open_split(data, split, vocab_size=model.vocab_size, vocabulary=saved.vocabulary_fingerprint)
    with Progress(f"evaluate {split}", 0, console=CONSOLE) as progress:
        scores = evaluate_split(
            model,
            saved.params,
            store,
            mesh=make_mesh(gin_files.configured(MeshConfig)),
            batch_size=data.batch_size,
            segment_length=data.segment_length,
            report=progress.report,
        )
    described = {"step": saved.step, "store": str(store.path), "fingerprint": store.fingerprint, "split": split}
    path = absolute(workdir) / f"evaluation_{split}.json"
    path.write_text(json.dumps(described | scores.as_dict(), indent=2) + "\n")
    title = f"{store.metadata.source}, whole split {split}, step {saved.step}"
    console.show_scores(CONSOLE, title, scores.as_dict())
    console.line(CONSOLE, f"written to {path}")
