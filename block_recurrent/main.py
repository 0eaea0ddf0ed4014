"""The command line. This is the only module that knows gin: it turns `--gin_file`s into the classes of `config.py`."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from etils import epath
from rich.console import Console

import gin
from block_recurrent import config as config_module
from block_recurrent.config import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PrepareConfig,
    RunConfig,
    TrainConfig,
)
from block_recurrent.errors import InputError
from gin import config_parser

app = typer.Typer(
    name="block_recurrent",
    help="Block-Recurrent Transformers: prepare text, train, evaluate, sample.",
    epilog="First time? `make quickstart` runs prepare and train on real text in a few minutes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_console = Console()

GinFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--gin_file",
        metavar="FILE",
        help="Experiment file, e.g. gin/runs/quickstart.gin; looked up in the working directory, then among the files "
        "that came with the package. Repeatable; the order does not matter: two files that bind one parameter "
        "differently are an error.",
    ),
]
GinParams = Annotated[
    list[str] | None,
    typer.Option(
        "--gin_param",
        metavar="NAME=VALUE",
        help="Overrides the files, e.g. 'TrainConfig.num_steps=100'. Repeatable.",
    ),
]
Workdir = Annotated[
    str,
    typer.Option(
        "--workdir",
        metavar="DIR",
        help="The run's folder, local or gs://: checkpoints, metrics, run.json.",
    ),
]


def main() -> None:
    """Runs the command line: exit code 2 and one clear message for what the caller can correct."""
    try:
        app(standalone_mode=True)
    except InputError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def prepare(
    context: typer.Context,
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
    list_sources: Annotated[
        bool, typer.Option("--list", help="Show every source and what it reads, and stop.")
    ] = False,
    runner: Annotated[
        str | None,
        typer.Option(
            metavar="RUNNER",
            help="Tokenise on Apache Beam instead (DirectRunner, DataflowRunner; extra `beam`). Beam's own options "
            "follow: --project=... Then join the parts with --finish.",
        ),
    ] = None,
    finish: Annotated[bool, typer.Option("--finish", help="Join what a Beam pipeline wrote into the store.")] = False,
) -> None:
    """Tokenise documents into a token store, one for each split.

    Example: python -m block_recurrent prepare --gin_file gin/data/python_stdlib.gin
    """
    from block_recurrent import console
    from block_recurrent.data.beam import finish as join_parts
    from block_recurrent.data.beam import run_pipeline
    from block_recurrent.data.prepare import prepare as prepare_stores
    from block_recurrent.progress import Progress

    if list_sources:
        console.show_sources(_console)
        return
    if context.args and runner is None:
        raise InputError(f"prepare: unknown argument {context.args[0]!r}; see prepare --help")
    _parse_gin(gin_file, gin_param)
    settings = _configured(PrepareConfig)
    if runner is not None:
        for split, units in run_pipeline(settings, [f"--runner={runner}", *context.args]).items():
            console.line(_console, f"{split}: {units:,} units of work done; join them with `prepare --finish`")
        return
    with Progress(f"prepare {settings.source}", 0, console=_console) as progress:
        summaries = (join_parts if finish else prepare_stores)(settings, report=progress.report)
    console.show_prepared(_console, summaries)


@app.command()
def inspect(
    store: Annotated[str, typer.Argument(metavar="STORE", help="What prepare wrote, or one split of it.")],
    document: Annotated[
        str | None, typer.Option(metavar="NAME", help="Print this document's text instead: its name, id or number.")
    ] = None,
) -> None:
    """Show a token store: counts, fingerprints, lengths of documents; or the text of one document."""
    from block_recurrent import console
    from block_recurrent.data import inspection

    stores = inspection.open_stores(store)
    if document is None:
        for opened in stores:
            console.show_store(_console, opened)
        return
    if len(stores) > 1:
        raise InputError(f"inspect {store}: has several splits; name one of them to print a document")
    sys.stdout.write(inspection.decode_document(stores[0], inspection.find_document(stores[0], document)))


@app.command()
def verify(
    store: Annotated[str, typer.Argument(metavar="STORE", help="What prepare wrote, or one split of it.")],
) -> None:
    """Reread a token store and compare every file with its checksum."""
    from block_recurrent import console
    from block_recurrent.data.inspection import open_stores
    from block_recurrent.progress import Progress

    for opened in open_stores(store):
        with Progress(f"verify {opened.path}", 0, console=_console) as progress:
            opened.verify(progress.report)
        console.line(_console, f"{opened.path}: {len(opened.metadata.files)} files as they were written")


@app.command("train-vocab")
def train_vocab(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The SentencePiece model to write.")],
    size: Annotated[int, typer.Option(help="Pieces, 256 bytes and the special ones included.")] = 32_000,
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
) -> None:
    """Train a SentencePiece vocabulary with byte fallback on a text source's training split.

    Example: python -m block_recurrent train-vocab own.model --size 4000 --gin_file gin/data/python_stdlib.gin
    """
    from block_recurrent import console
    from block_recurrent.data.sources.catalog import load_source
    from block_recurrent.data.train_vocabulary import train_vocabulary
    from block_recurrent.progress import Progress

    _parse_gin(gin_file, gin_param)
    source = load_source(_configured(PrepareConfig))
    with Progress(f"read {source.name}", 0, console=_console) as progress:
        trained = train_vocabulary(source, model, size=size, report=progress.report)
    console.line(
        _console,
        f"{trained.path}: {trained.vocabulary.size:,} ids, table of {trained.vocabulary.table_size:,} rows, "
        f"{trained.characters_per_token:.3f} characters per token, fingerprint {trained.vocabulary.fingerprint[:12]}",
    )


@app.command()
def train(workdir: Workdir, gin_file: GinFiles = None, gin_param: GinParams = None) -> None:
    """Train; started again on the same workdir, continue from its newest checkpoint.

    Example: python -m block_recurrent train --gin_file gin/runs/quickstart.gin --workdir runs/quickstart
    """
    _parse_gin(gin_file, gin_param)
    run = _configured_run()
    from block_recurrent import console
    from block_recurrent.generate import Sampling
    from block_recurrent.saved_run import SavedRun
    from block_recurrent.train import train as train_run

    folder = _absolute(workdir)
    result = train_run(run, folder, _console, config_gin=gin.operative_config_str())
    console.show_result(_console, run.data.eval_split, result)
    if run.train.sample_tokens:
        _console.rule("sample: the prompt and its continuation")
        sampling = Sampling(temperature=0.8, top_p=0.95)
        saved = SavedRun.load(folder)
        console.stream_continuation(saved, run.train.sample_prompt, run.train.sample_tokens, sampling, seed=0)
        _console.rule()
    console.show_next_steps(_console, workdir)


@app.command()
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
    from block_recurrent.progress import Progress
    from block_recurrent.saved_run import SavedRun

    _parse_gin(gin_file, gin_param)
    saved = SavedRun.load(_absolute(workdir))
    model, data = saved.config.model, dataclasses.replace(saved.config.data, **gin.get_bindings(DataConfig))
    store = open_split(data, split, vocab_size=model.vocab_size, vocabulary=saved.vocabulary_fingerprint)
    with Progress(f"evaluate {split}", 0, console=_console) as progress:
        scores = evaluate_split(
            model,
            saved.params,
            store,
            batch_size=data.batch_size,
            segment_length=data.segment_length,
            report=progress.report,
        )
    described = {"step": saved.step, "store": str(store.path), "fingerprint": store.fingerprint, "split": split}
    path = _absolute(workdir) / f"evaluation_{split}.json"
    path.write_text(json.dumps(described | scores.as_dict(), indent=2) + "\n")
    title = f"{store.metadata.source}, whole split {split}, step {saved.step}"
    console.show_scores(_console, title, scores.as_dict())
    console.line(_console, f"written to {path}")


@app.command()
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
    prompt = _read_text(prompt_file)
    saved = SavedRun.load(_absolute(workdir))
    console.stream_continuation(saved, prompt, num_tokens, sampling, seed)


@app.command("check-parity")
def check_parity(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="Fixtures (.npz).")
    ],
) -> None:
    """Compare our model with what the official code computed; exit code 1 if any error is over its limit."""
    from block_recurrent import console
    from block_recurrent.interop.parity import LIMITS, check_fixture

    limits = ", ".join(f"{kind} {limit:g}" for kind, limit in LIMITS.items())
    _console.print(
        f"largest errors (limits: {limits}; loss and gradients are relative)", highlight=False, soft_wrap=True
    )
    failed = 0
    for file in files:
        try:
            parity = check_fixture(file)
        except InputError as error:
            failed += 1
            console.line(_console, f"{file.name}: OVER  {error}")
            continue
        over = [f"{kind} at {parity.places[kind]}" for kind in LIMITS if not parity.errors[kind] <= LIMITS[kind]]
        failed += bool(over)
        errors = "  ".join(f"{kind} {error:.1e}" for kind, error in parity.errors.items())
        verdict = f"OVER: {', '.join(over)}" if over else "ok"
        console.line(_console, f"{file.name}: {errors}  {verdict}")
    console.line(_console, f"{len(files) - failed} of {len(files)} files within the limits")
    if failed:
        raise typer.Exit(1)


# ---------------------------------------------------------------------------------------------------------------- gin


class _Unresolved(config_parser.ParserDelegate):
    """Keeps references and macros as text: enough to tell whether two files say the same."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return f"@{scoped_configurable_name}{'()' if evaluate else ''}"

    def macro(self, macro_name: str) -> Any:
        return f"%{macro_name}"


def _parse_gin(files: list[str] | None, params: list[str] | None) -> None:
    """Reads files and overrides into gin.

    Raises:
        InputError: a file is missing or cannot be parsed, names something unknown, or contradicts another file.
    """
    gin.clear_config()
    for root in _gin_roots():
        gin.add_config_file_search_path(str(root))
    files = [str(_find_gin_file(file)) for file in files or []]
    _refuse_contradictions(files)
    try:
        for file in files:
            gin.parse_config_file(file)
        gin.parse_config(params or [])
    except Exception as error:  # gin raises whatever Python raised while it looked at a statement
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError("gin: " + " ".join(lines)) from None


def _gin_roots() -> list[Path]:
    """Where experiment files are looked up: the working directory, a checkout, the installed package."""
    package = Path(__file__).parent
    return [Path(), package.parent, package]


def _find_gin_file(file: str) -> Path:
    for root in _gin_roots():
        if (root / file).is_file():
            return root / file
    shipped = sorted({str(path.relative_to(root)) for root in _gin_roots()[1:] for path in root.glob("gin/runs/*.gin")})
    raise InputError(f"--gin_file {file}: no such file; ready to use: {', '.join(shipped) or 'none'}")


def _refuse_contradictions(files: list[str]) -> None:
    """Files lie on orthogonal axes; gin itself would silently let the later one win."""
    seen: dict[str, tuple[Any, str]] = {}
    for file in files:
        for name, (value, where) in _bindings_of(file).items():
            if name in seen and seen[name][0] != value:
                other_value, other_where = seen[name]
                raise InputError(
                    f"--gin_file: {name} = {other_value!r} ({other_where}) and {name} = {value!r} ({where}) contradict "
                    "each other; use one of the files, or decide with --gin_param"
                )
            seen[name] = value, where


def _bindings_of(file: str) -> dict[str, tuple[Any, str]]:
    """What one file binds, with includes; a file overrides what it includes."""
    bindings: dict[str, tuple[Any, str]] = {}
    for statement in _statements(file):
        if isinstance(statement, config_parser.IncludeStatement):
            bindings |= _bindings_of(str(_find_gin_file(statement.filename)))
        elif isinstance(statement, config_parser.BindingStatement):
            # `config.ModelConfig` and `ModelConfig` are the same class, however it was imported.
            selector = statement.selector.rsplit(".", 1)[-1]
            name = ".".join(part for part in (statement.scope, selector, statement.arg_name) if part)
            bindings[name] = statement.value, f"{file}:{statement.location.line_num}"
    return bindings


def _statements(file: str) -> Iterator[Any]:
    with Path(file).open() as lines:
        try:
            yield from config_parser.ConfigParser(lines, _Unresolved())
        except SyntaxError as error:
            raise InputError(f"{file}:{error.lineno}: {error.msg}") from None


def _configured(cls: type[Any]) -> Any:
    """The configuration that the files describe.

    Raises:
        InputError: a field without a default is bound nowhere, or a value is not allowed.
    """
    bound = gin.get_bindings(cls)
    required = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.name not in bound
    ]
    if required:
        raise InputError(f"{cls.__name__}: {', '.join(required)} not given; bind in a --gin_file or by --gin_param")
    try:
        return gin.get_configurable(cls)()
    except InputError as error:
        raise InputError(str(error).splitlines()[0]) from None  # gin adds a line about itself


def _configured_run() -> RunConfig:
    return RunConfig(
        model=_configured(ModelConfig),
        data=_configured(DataConfig),
        optimizer=_configured(OptimizerConfig),
        train=_configured(TrainConfig),
    )


for _name, _cls in vars(config_module).items():
    if dataclasses.is_dataclass(_cls) and _cls is not RunConfig:
        gin.external_configurable(_cls, module=config_module.__name__)


# -------------------------------------------------------------------------------------------------------------- runs


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _absolute(workdir: str) -> epath.Path:
    return epath.Path(workdir if "://" in workdir else Path(workdir).absolute())


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from None
