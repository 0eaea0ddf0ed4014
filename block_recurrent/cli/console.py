"""Console output: tables, single lines and streamed text."""

import sys
import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


def table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Prints a table. Outside a terminal cells are never cut, since there is no width to fit into."""
    drawn = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        drawn.add_row(*row)
    wide = console if console.is_terminal else Console(file=console.file, width=200, highlight=False)
    wide.print(drawn)


def line(console: Console, text: str) -> None:
    """Prints one line unchanged, without wrapping or markup."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def boxed_text(console: Console, stream: Iterable[str], *, prompt: str, num_tokens: int) -> None:
    """Prints a prompt and its continuation in a box, with the tokens per second."""
    start = time.perf_counter()
    text = Text(prompt, style="bold")
    text.append("".join(stream), style="not bold")
    rate = num_tokens / (time.perf_counter() - start)
    below = f"prompt and {num_tokens:,} sampled tokens, {rate:,.0f} tokens per second with compilation"
    console.print(Panel(text, title="sample", subtitle=below))


def stream_text(stream: Iterable[str], *, prompt: str = "") -> None:
    """Writes a prompt to standard output, then each piece of its continuation as it arrives."""
    sys.stdout.write(prompt)
    for text in stream:
        sys.stdout.write(text)
        sys.stdout.flush()
    sys.stdout.write("\n")
