"""The command line: registers the commands and turns expected errors into one message and an exit code."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from block_recurrent import __version__
from block_recurrent.cli import compile_aot as compile_command
from block_recurrent.cli import (
    data,
    describe,
    doctor,
    environment,
    evaluate,
    export,
    generate,
    interruption,
    parity,
    report,
    score,
    table,
    train,
)
from block_recurrent.cli.modules import takes_modules
from block_recurrent.cli.narrow_output import narrow_output
from block_recurrent.errors import EXIT_CODES, InputError, PreemptedError

# The installed command, which alone can complete its arguments in a shell, or the module.
INSTALLED = Path(sys.argv[0]).name == "block-recurrent"
PROGRAM = "block-recurrent" if INSTALLED else "python -m block_recurrent"


def _with_dashes(name: str) -> str:
    """Makes `--gin_file` the same option as `--gin-file`; only the names of options pass through here."""
    return name.replace("_", "-")


app = typer.Typer(
    name="block_recurrent",
    help="Block-Recurrent Transformers: prepare text, train, evaluate and generate.",
    epilog="First time? `make quickstart` prepares real text and trains on it in a few minutes.",
    context_settings={"token_normalize_func": _with_dashes},
    no_args_is_help=True,
    add_completion=INSTALLED,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
# Options that `prepare` does not know are passed on to Apache Beam, unchanged.
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
app.command()(doctor.doctor)
for _command in app.registered_commands:
    _command.callback = takes_modules(_command.callback)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"block-recurrent {__version__}")
        raise typer.Exit


@app.callback()
def _options_of_the_program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@narrow_output()
def main() -> None:
    """Runs the command line. An expected error ends with one message and its own exit code (`errors.EXIT_CODES`)."""
    interruption.keeps("nothing was written")
    try:
        app(prog_name=PROGRAM, standalone_mode=True)
    except PreemptedError as error:
        interruption.report(error.signal, str(error))
        sys.exit(interruption.exit_code(error.signal))
    except tuple(EXIT_CODES) as error:
        _fail(str(error), EXIT_CODES[type(error)])
    except Exception as error:
        message = environment.explain(error)
        if message is None:
            raise
        _fail(message, EXIT_CODES[InputError])


def _fail(message: str, code: int) -> NoReturn:
    text = " ".join(message.splitlines()).replace("[", r"\[")
    Console(stderr=True).print(f"[bold red]error:[/] {text}", highlight=False, soft_wrap=True)
    sys.exit(code)
