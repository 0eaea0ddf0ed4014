"""`generate`."""

from pathlib import Path
from typing import Annotated

import typer

from block_recurrent.commands.options import Workdir, absolute, read_text


def generate(
    workdir: Workdir,
    prompt_file: Annotated[
        Path, typer.Option("--prompt-file", exists=True, dir_okay=False, help="Text to continue (UTF-8).")
    ],
    num_tokens: Annotated[int, typer.Option("--num-tokens", min=1, help="How many tokens to sample.")] = 256,
    temperature: Annotated[float, typer.Option(help="Divides the logits; 0 takes the most probable token.")] = 1.0,
    top_k: Annotated[int, typer.Option("--top-k", help="Keep the k most probable tokens; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option("--top-p", help="Keep the most probable tokens with this share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
) -> None:
    """Continue a text, carrying the recurrent state through prompt and continuation.

    Example: python -m block_recurrent generate --workdir runs/quickstart --prompt-file setup.py
    """
    from block_recurrent import console
    from block_recurrent.generate import Sampling
    from block_recurrent.saved_run import SavedRun

    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    prompt = read_text(prompt_file)
    saved = SavedRun.load(absolute(workdir))
    console.stream_continuation(saved, prompt, num_tokens, sampling, seed)
