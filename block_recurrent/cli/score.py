"""The command `score`."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from block_recurrent.cli import interruption, several_processes
from block_recurrent.cli.batch import Batch
from block_recurrent.cli.compilation_cache import CompilationCache, use_compilation_cache
from block_recurrent.cli.options import (
    CONSOLE,
    ModelName,
    RunFolder,
    SegmentLength,
    VocabularyFile,
    check_one_model,
    load_generator,
)
from block_recurrent.cli.several_processes import Coordinator, Fsdp, NumProcesses, ProcessId
from block_recurrent.cli.text_io import STANDARD, gather_texts, json_lines
from block_recurrent.errors import InputError
from block_recurrent.files import local_path

if TYPE_CHECKING:
    from block_recurrent.generation.scoring import Score


def score(
    workdir: RunFolder = None,
    model: ModelName = None,
    text: Annotated[list[str] | None, typer.Option("--text", metavar="TEXT", help="Text to score. Repeatable.")] = None,
    text_file: Annotated[
        Path | None,
        typer.Option(
            "--text-file",
            metavar="FILE",
            parser=local_path,
            help="File with the text to score (UTF-8); - is standard input.",
        ),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            "--texts",
            metavar="FILE",
            parser=local_path,
            help="Many texts: JSON lines, strings or objects with a string in `text`.",
        ),
    ] = None,
    load_state: Annotated[
        Path | None,
        typer.Option(
            "--load-state",
            metavar="FILE",
            parser=local_path,
            help="Score each text as a continuation of a saved state.",
        ),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            "--jsonl",
            metavar="FILE",
            parser=local_path,
            help="Write JSON lines with the loss of every token; - is standard output.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts scored together.")] = 8,
    segment_length: SegmentLength = None,
    vocabulary: VocabularyFile = None,
    fsdp: Fsdp = 1,
    coordinator: Coordinator = None,
    num_processes: NumProcesses = None,
    process_id: ProcessId = None,
    compilation_cache: CompilationCache = True,
) -> None:
    """Print the log-probability of texts, computed as in evaluation: a document's first token is not scored.

    Without --text, --text-file or --texts the text is read from standard input. With --load-state the first token is
    scored too. With several processes, one on each host, all of them run the same command; the first one prints.

    Example: python -m block_recurrent score --workdir runs/quickstart --text "import os" --text "import so"
    """
    check_one_model("score", workdir, model)
    if text is None and text_file is None and texts is None:
        text_file = STANDARD
    several_processes.join(coordinator, num_processes, process_id)
    gathered = several_processes.read_texts(lambda: gather_texts(text, text_file, texts, "text"), text_file, texts)
    if not gathered:
        raise InputError(f"--texts {texts}: contains no texts")
    use_compilation_cache(compilation_cache)
    placement = several_processes.placement_if_needed(fsdp)
    with several_processes.loading(fsdp):
        generator = load_generator(
            workdir,
            model,
            batch_size=batch_size,
            vocabulary=vocabulary,
            segment_length=segment_length,
            placement=placement,
        )
    state = None if load_state is None else generator.load_state(load_state)
    alone = texts is None and len(gathered) == 1
    batch = Batch("text", gathered, lambda given: generator.score([given], state=state), alone=alone)
    _show(batch, generator.score(batch.answerable, state=state), several_processes.output_of_the_first(jsonl))
    several_processes.leave()
    batch.end()


def _show(batch: Batch, scores: "Iterator[Score]", jsonl: Path | None) -> None:
    from block_recurrent.cli import views

    interruption.keeps("nothing is kept; --jsonl FILE would write each score at once")
    shown = []
    with contextlib.nullcontext(None) if jsonl is None else json_lines(jsonl) as write:
        for done, (number, score) in enumerate(batch.answers(scores, lambda score: score.text)):
            if write is not None:
                interruption.keeps(f"{jsonl}: the scores of {done} of {len(batch.texts)} texts are written")
            if isinstance(score, InputError):
                batch.show(number, score) if write is None else write(batch.record(number, score))
            elif write is None:
                shown.append(dataclasses.replace(score, text=number))
            else:
                write(score.as_dict() | {"text": number})
    if shown:
        views.show_text_scores(CONSOLE, shown)
