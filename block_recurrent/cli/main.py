"""The command line: joins the commands and turns what a caller can correct into one message."""

import sys

import typer
from rich.console import Console

from block_recurrent.cli import compile_aot as compile_command
from block_recurrent.cli import data, describe, evaluate, export, generate, parity, report, score, table, train
from block_recurrent.errors import EXIT_CODES

app = typer.Typer(
    name="block_recurrent",
    help="Block-Recurrent Transformers: prepare text, train, evaluate, sample.",
    epilog="First time? `make quickstart` runs prepare and train on real text in a few minutes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
# Beam's own options follow prepare's.
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(data.prepare)
app.command()(data.inspect)
app.command()(data.verify)
app.command("train-vocab")(data.train_vocab)
app.command()(describe.describe)
app.command()(compile_command.compile)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(evaluate.compare)
app.command()(report.report)
app.command()(table.table)
app.command()(generate.generate)
app.command()(score.score)
app.command()(export.export)
app.command("check-parity")(parity.check_parity)


def main() -> None:
    """Runs the command line; what it can foresee ends with one clear message and an exit code of its own (`errors`)."""
    try:
        app(standalone_mode=True)
    except tuple(EXIT_CODES) as error:
        message = str(error).replace("[", r"\[")
        Console(stderr=True).print(f"[bold red]error:[/] {message}", highlight=False, soft_wrap=True)
        sys.exit(EXIT_CODES[type(error)])
