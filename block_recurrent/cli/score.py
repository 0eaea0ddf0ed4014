"""`score`."""

from pathlib import Path
from typing import Annotated

import typer

from block_recurrent.cli.options import CONSOLE, Workdir, absolute
from block_recurrent.cli.text_io import STANDARD, gather_texts, json_lines
from block_recurrent.errors import InputError


def score(
    workdir: Workdir,
    text: Annotated[list[str] | None, typer.Option("--text", metavar="TEXT", help="Text to score. Repeatable.")] = None,
    text_file: Annotated[
        Path | None, typer.Option("--text-file", metavar="FILE", help="Text to score (UTF-8); - is standard input.")
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option("--texts", metavar="FILE", help="Many: JSON lines, texts or objects with a text in `text`."),
    ] = None,
    load_state: Annotated[
        Path | None,
        typer.Option("--load-state", metavar="FILE", help="Score each text behind what that state has read."),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            "--jsonl", metavar="FILE", help="Write JSON lines, with every token's nats; - is standard output."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts scored side by side.")] = 8,
) -> None:
    """Print the log-probability of texts: every token after a document's first, as evaluation scores it.

    Without --text, --text-file or --texts the text is read from standard input. Behind --load-state the first token
    is scored too.

    Example: python -m block_recurrent score --workdir runs/quickstart --text "import os" --text "import so"
    """
    from block_recurrent.cli import views
    from block_recurrent.generation.generator import Generator
    from block_recurrent.training.saved_run import SavedRun

    if text is None and text_file is None and texts is None:
        text_file = STANDARD
    gathered = gather_texts(text, text_file, texts, "text")
    if not gathered:
        raise InputError(f"--texts {texts}: holds no texts")
    generator = Generator.of_run(SavedRun.load(absolute(workdir)), batch_size=batch_size)
    state = None if load_state is None else generator.load_state(load_state)
    scores = generator.score(gathered, state=state)
    if jsonl is None:
        views.show_text_scores(CONSOLE, list(scores))
        return
    with json_lines(jsonl) as write:
        for one in scores:
            write(one.as_dict())
