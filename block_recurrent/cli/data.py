"""The commands `prepare`, `inspect`, `verify` and `train-vocab`: text and token stores."""

import sys
from typing import Annotated

import typer

from block_recurrent.cli import gin_files, interruption
from block_recurrent.cli.options import CONSOLE, GinFiles, GinParams, VocabularyFile
from block_recurrent.config import PrepareConfig
from block_recurrent.errors import InputError
from block_recurrent.files import expand


def prepare(
    context: typer.Context,
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
    list_sources: Annotated[bool, typer.Option("--list", help="List the sources with their inputs and exit.")] = False,
    runner: Annotated[
        str | None,
        typer.Option(
            metavar="RUNNER",
            help="Tokenise with this Apache Beam runner (DirectRunner, DataflowRunner; extra `beam`) instead. Further "
            "options such as --project=... are passed to Beam. Afterwards join the shards with --finish.",
        ),
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Join the shards of a Beam pipeline into the store.")
    ] = False,
) -> None:
    """Tokenise the documents of a text source and write one token store per split.

    Example: python -m block_recurrent prepare --gin-file gin/data/python_stdlib.gin
    """
    from block_recurrent.cli import console, views
    from block_recurrent.data.preparation.beam import finish as join_shards
    from block_recurrent.data.preparation.beam import run_pipeline
    from block_recurrent.data.preparation.prepare import prepare as prepare_stores
    from block_recurrent.progress import Progress

    if list_sources:
        views.show_sources(CONSOLE)
        return
    if context.args and runner is None:
        raise InputError(f"prepare: unknown argument {context.args[0]!r}; see prepare --help")
    gin_files.parse(gin_file, gin_param)
    settings = gin_files.configured(PrepareConfig)
    interruption.keeps(f"{settings.store}: the part that is done is kept; the same command continues", resumable=True)
    if runner is not None:
        for split, units in run_pipeline(settings, [f"--runner={runner}", *context.args]).items():
            console.line(CONSOLE, f"{split}: {units:,} units of work done; join them with `prepare --finish`")
        return
    with Progress(f"prepare {settings.source}", 0, console=CONSOLE) as progress:
        summaries = (join_shards if finish else prepare_stores)(settings, progress=progress)
    views.show_prepared(CONSOLE, summaries)


def inspect(
    store: Annotated[
        str, typer.Argument(metavar="STORE", parser=expand, help="Folder that prepare wrote, or one of its splits.")
    ],
    document: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name, id or number of a document; prints its text instead of the summary."),
    ] = None,
    list_documents: Annotated[
        bool,
        typer.Option("--list", help="List the documents instead: number, tokens, bytes and name, separated by tabs."),
    ] = False,
    vocabulary: VocabularyFile = None,
) -> None:
    """Show a token store: counts, fingerprints and document lengths, its documents, or the text of one document."""
    from block_recurrent.cli import views
    from block_recurrent.data.recorded_vocabulary import load_recorded_vocabulary
    from block_recurrent.data.store import inspection

    if list_documents and document is not None:
        raise InputError("inspect: give either --list or --document")
    stores = inspection.open_stores(store)
    if document is None and not list_documents:
        for opened in stores:
            views.show_store(CONSOLE, opened)
        return
    if len(stores) > 1:
        raise InputError(
            f"inspect {store}: has several splits; use the folder of one of them with --document or --list, such "
            f"as {stores[0].path}"
        )
    if document is None:
        sys.stdout.writelines(inspection.document_lines(stores[0]))
        return
    about, number = stores[0].vocabulary, inspection.find_document(stores[0], document)
    own = load_recorded_vocabulary(about.spec, about.fingerprint, given=vocabulary, folders=[stores[0].path])
    sys.stdout.write(inspection.decode_document(stores[0], number, vocabulary=own))


def verify(
    store: Annotated[
        str, typer.Argument(metavar="STORE", parser=expand, help="Folder that prepare wrote, or one of its splits.")
    ],
) -> None:
    """Read every file of a token store and compare its checksum."""
    from block_recurrent.cli import console
    from block_recurrent.data.store.inspection import open_stores
    from block_recurrent.progress import Progress

    for opened in open_stores(store):
        with Progress(f"verify {opened.path}", 0, console=CONSOLE) as progress:
            opened.verify(progress)
        console.line(CONSOLE, f"{opened.path}: all {len(opened.metadata.files)} checksums match")


def train_vocab(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", parser=expand, help="Path of the SentencePiece model to write.")
    ],
    size: Annotated[int, typer.Option(help="Number of pieces, including 256 bytes and the special pieces.")] = 32_000,
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
) -> None:
    """Train a SentencePiece vocabulary with byte fallback on the training split of a text source.

    Example: python -m block_recurrent train-vocab own.model --size 4000 --gin-file gin/data/python_stdlib.gin
    """
    from block_recurrent.cli import console
    from block_recurrent.data.sources.catalog import load_source
    from block_recurrent.data.train_vocabulary import train_vocabulary
    from block_recurrent.progress import Progress

    gin_files.parse(gin_file, gin_param)
    source = load_source(gin_files.configured(PrepareConfig))
    with Progress(f"read {source.name}", 0, console=CONSOLE) as progress:
        trained = train_vocabulary(source, model, size=size, progress=progress)
    console.line(
        CONSOLE,
        f"{trained.path}: {trained.vocabulary.size:,} ids, table of {trained.vocabulary.table_size:,} rows, "
        f"{trained.characters_per_token:.3f} characters per token, fingerprint {trained.vocabulary.fingerprint[:12]}",
    )
