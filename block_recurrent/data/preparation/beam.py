"""Preparation on many machines, as an Apache Beam pipeline.

`run_pipeline` writes shards (see `shards.py`) with any of Beam's runners. `finish` joins them into the same stores that
`prepare` would have written. Apache Beam is the extra `beam` and is imported only where it is used.
"""

from collections.abc import Iterator, Sequence

from etils import epath

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation import shards
from block_recurrent.data.preparation.prepare import SplitSummary, chosen_splits, identity_of, write_stores
from block_recurrent.data.preparation.workers import EncodedGroup, Encoder
from block_recurrent.data.sources.catalog import load_source
from block_recurrent.data.sources.source import Counts
from block_recurrent.data.store.encoded_document import token_dtype
from block_recurrent.data.vocabulary import load_vocabulary
from block_recurrent.errors import InputError, first_line, install_command
from block_recurrent.progress import ProgressCallback


def run_pipeline(config: PrepareConfig, arguments: Sequence[str] = ()) -> dict[str, int]:
    """Tokenises a source into shards under `<store>/.parts` and waits until the pipeline has finished.

    Skips units that an earlier run has finished.

    Args:
        config: source, store and vocabulary; on a cluster, all on `gs://`.
        arguments: Beam's own pipeline options, as on a command line: `--runner=DataflowRunner`, `--project=...`.

    Returns:
        Number of units of each split.

    Raises:
        InputError: Beam is not installed, or the input or the store's folder is not usable.
    """
    try:
        import apache_beam  # pyright: ignore[reportMissingImports]  # installed with the extra only
        from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"--runner needs the extra `beam` ({install_command('beam')}): {first_line(error)}") from None
    source, vocabulary = load_source(config), load_vocabulary(config.vocabulary)
    encoder = Encoder(source, vocabulary, token_dtype(vocabulary.table_size))
    units = {split: shards.divide_into_units(source.files(split)) for split in chosen_splits(config, source)}
    with apache_beam.Pipeline(options=PipelineOptions(list(arguments))) as pipeline:
        for split, work in units.items():
            folder = shards.shard_folder(config.store, split)
            shards.write_plan(folder, identity_of(source, split, vocabulary), work)
            encode = shards.UnitEncoder(encoder, split, folder.as_posix())
            created = pipeline | f"{split}: list" >> apache_beam.Create(work)
            # Without the reshuffle, the runner fuses the steps and one machine does all the work.
            spread = created | f"{split}: spread" >> apache_beam.Reshuffle()
            _ = spread | f"{split}: tokenise" >> apache_beam.Map(encode)
    return {split: len(work) for split, work in units.items()}


def finish(config: PrepareConfig, *, progress: ProgressCallback | None = None) -> list[SplitSummary]:
    """Joins shards into stores and removes the shards.

    As with `prepare`, an interrupted run can be repeated and finished stores are left alone.

    Args:
        config: the pipeline's configuration.
        progress: called with (bytes of input done, bytes of input in all).

    Returns:
        One summary per split, as `prepare`.

    Raises:
        InputError: shards are missing, damaged, or belong to another preparation; and as `prepare`.
    """
    source, vocabulary = load_source(config), load_vocabulary(config.vocabulary)

    def groups(split: str, skip: int, walked: Counts) -> Iterator[EncodedGroup]:
        wanted = identity_of(source, split, vocabulary)
        return shards.read_shards(shards.shard_folder(config.store, split), wanted, skip, walked)

    summaries = write_stores(config, source, vocabulary, groups, progress)
    for summary in summaries:
        folder = shards.shard_folder(config.store, summary.metadata.split)
        if folder.exists():
            folder.rmtree()
    root = epath.Path(config.store) / shards.FOLDER
    if root.exists() and not any(root.iterdir()):
        root.rmdir()
    return summaries
