"""Prepares a text source: writes one token store for each split."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation import round_trip
from block_recurrent.data.preparation.output import StoreOutput
from block_recurrent.data.preparation.workers import EncodedGroup, Encoder, encode_records
from block_recurrent.data.recorded_vocabulary import keep_vocabulary
from block_recurrent.data.sources.catalog import load_source
from block_recurrent.data.sources.source import Counts, Source
from block_recurrent.data.store.columns import name_bytes
from block_recurrent.data.store.encoded_document import token_dtype
from block_recurrent.data.store.metadata import RULES_VERSION, StoreMetadata, VocabularyMetadata, identity
from block_recurrent.data.store.writer import StoreWriter, name_digest
from block_recurrent.data.vocabulary import Vocabulary, load_vocabulary
from block_recurrent.errors import InputError
from block_recurrent.progress import ProgressCallback

DUPLICATES = "documents with the name of an earlier one (left out)"
Groups = Callable[[str, int, Counts], Iterator[EncodedGroup]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """The result of preparing one split.

    Attributes:
        path: folder of the store.
        metadata: the store's metadata.
        unchanged: True if the store existed already and no text was written.
        warnings: warnings for the user.
    """

    path: epath.Path
    metadata: StoreMetadata
    unchanged: bool
    warnings: tuple[str, ...] = ()


def prepare(config: PrepareConfig, *, progress: ProgressCallback | None = None) -> list[SplitSummary]:
    """Tokenises a source into one store per split.

    Continues an interrupted run and leaves finished stores alone.

    Args:
        config: source, store, vocabulary and workers.
        progress: called with (bytes of input done, bytes of input in all).

    Returns:
        One summary per split, in the source's order.

    Raises:
        InputError: the input or the store's folder is not usable, or the folder holds something else.
    """
    source, vocabulary = load_source(config), load_vocabulary(config.vocabulary)
    encoder = Encoder(source, vocabulary, token_dtype(vocabulary.table_size))
    workers = config.workers or available_cores()

    def groups(split: str, skip: int, walked: Counts) -> Iterator[EncodedGroup]:
        return encode_records(encoder, itertools.islice(source.walk(split, walked), skip, None), workers)

    return write_stores(config, source, vocabulary, groups, progress)


def write_stores(
    config: PrepareConfig, source: Source, vocabulary: Vocabulary, groups: Groups, progress: ProgressCallback | None
) -> list[SplitSummary]:
    """Writes the stores of tokenised documents.

    Args:
        config: store and splits.
        source: source of the text.
        vocabulary: vocabulary of the tokens.
        groups: (split, records to skip, counts) -> groups of records, in order. Adds to the counts what iterating over
            the input leaves out.
        progress: called with (bytes of input done, bytes of input in all).

    Returns:
        One summary per split, in the source's order.

    Raises:
        InputError: as `prepare`.
    """
    splits = chosen_splits(config, source)
    output = StoreOutput(config.store)
    job = _Job(source, vocabulary, output, groups, _Progress(source, splits, progress), config.corpus)
    with output.locked():
        summaries = [_prepare_split(job, split) for split in splits]
        _publish(job, summaries)
    written = [summary.metadata.split for summary in summaries if not summary.unchanged]
    about_input = (*source.warnings, *(round_trip.warnings(source, written, vocabulary) if written else ()))
    first = dataclasses.replace(summaries[0], warnings=(*about_input, *summaries[0].warnings))
    return [first, *summaries[1:]]


def chosen_splits(config: PrepareConfig, source: Source) -> tuple[str, ...]:
    """Returns the splits to prepare. Raises an InputError if the configuration names a split that does not exist."""
    for split in config.splits or ():
        if split not in source.splits:
            raise InputError(
                f"PrepareConfig.splits: source {source.name} has no split {split!r}; it has {', '.join(source.splits)}"
            )
    return config.splits or source.splits


def _publish(job: "_Job", summaries: list[SplitSummary]) -> None:
    """Publishes the new stores without documents, which small corpora have, unless there is no document at all.

    Raises:
        InputError: no split has a document, and no store existed before.
    """
    empty = [s.metadata for s in summaries if not s.metadata.counts.documents and not s.unchanged]
    if len(empty) < len(summaries):
        for described in empty:
            _publish_split(job, described.split)
        return
    reasons = Counts()
    for described in empty:
        job.output.discard(described.split)
        reasons.update(described.left_out)
    found = "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    raise InputError(f"source {job.source.name}: its input has no document{f'; it has {found}' if found else ''}")


def warnings_about(source: Source, described: StoreMetadata) -> tuple[str, ...]:
    """Returns a warning if the number of words differs from the one that the corpus's authors published."""
    published, counts = source.published_words.get(described.split), described.counts
    another = described.corpus not in (None, described.published_corpus)
    if another or published is None or published == counts.words:
        return ()
    return (
        f"{source.name} {described.split}: {counts.words:,} words in {counts.documents:,} documents; "
        f"{published:,} words were published, and only with that number is word-level perplexity comparable; results "
        f"call this text {described.name}: PrepareConfig.corpus gives another text its name",
    )


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Progress:
    def __init__(self, source: Source, splits: tuple[str, ...], progress: ProgressCallback | None):
        self._progress = progress
        self._totals = {split: source.total(split) for split in splits} if progress else {}
        self._done = dict.fromkeys(self._totals, 0)

    def advance(self, split: str, size: int) -> None:
        if self._progress:
            self._done[split] = min(self._done[split] + size, self._totals[split])
            self._progress(sum(self._done.values()), sum(self._totals.values()))

    def finish(self, split: str) -> None:
        if self._progress:
            self.advance(split, self._totals[split])


@dataclasses.dataclass(frozen=True)
class _Job:
    source: Source
    vocabulary: Vocabulary
    output: StoreOutput
    groups: Groups
    progress: _Progress
    corpus: str | None


def identity_of(source: Source, split: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns the identity of a preparation; see `metadata.identity`."""
    settings = {RULES_VERSION: source.rules_version, **source.settings}
    return identity(source.name, split, settings, source.signature(split), vocabulary.fingerprint)


def _prepare_split(job: _Job, split: str) -> SplitSummary:
    path = job.output.final_folder(split)
    wanted = identity_of(job.source, split, job.vocabulary)
    found = job.output.find_finished(split, wanted)
    if found is None:
        with _named_errors(path):
            described = job.output.find_built(split, wanted) or _write(job, split, wanted)
        if described.counts.documents:
            _publish_split(job, split)
    else:
        described = found
        if job.corpus not in (None, found.corpus):
            with _named_errors(path):
                described = job.output.rename(split, found, job.corpus)
    job.progress.finish(split)
    warnings = warnings_about(job.source, described)
    if described.rules_version != job.source.rules_version:
        warnings += (
            f"{path} was written by rules of version {described.rules_version}; source {job.source.name} has version "
            f"{job.source.rules_version} now (docs/data.md); remove the folder to prepare it by the new rules",
        )
    return SplitSummary(path=path, metadata=described, unchanged=found is not None, warnings=warnings)


def _publish_split(job: _Job, split: str) -> None:
    with _named_errors(job.output.final_folder(split)):
        job.output.publish(split)


@contextlib.contextmanager
def _named_errors(path: epath.Path) -> Iterator[None]:
    """Turns errors of the file system into an InputError that names the store."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        raise InputError(f"cannot finish {path}: {reason}{where}; run the same command to continue") from error


def _write(job: _Job, split: str, wanted: dict[str, Any]) -> StoreMetadata:
    vocabulary = job.vocabulary
    writer = StoreWriter(job.output.work_folder(split), wanted, token_dtype(vocabulary.table_size))
    try:
        left_out = _append(writer, job, split)
        described = VocabularyMetadata(
            spec=vocabulary.spec,
            fingerprint=vocabulary.fingerprint,
            size=vocabulary.size,
            table_size=vocabulary.table_size,
        )
        keep_vocabulary(vocabulary, job.output.work_folder(split))
        return writer.finish(described, left_out, job.corpus)
    finally:
        writer.close()


def _append(writer: StoreWriter, job: _Job, split: str) -> Counts:
    state = writer.resumed or {"records": 0, "size": 0, "counts": {}}
    records, size, counts = state["records"], state["size"], Counts(state["counts"])
    job.progress.advance(split, size)
    walked = Counts()  # every run iterates over the whole input again and recounts what that leaves out
    for group in _without_duplicates(job.groups(split, records, walked), writer.name_digests()):
        for document in group.documents:
            writer.add(document)
        records, size = records + group.records, size + group.size
        counts.update(group.counts)
        writer.checkpoint({"records": records, "size": size, "counts": dict(counts)})
        job.progress.advance(split, group.size)
    return counts + walked + job.source.left_out(split)


def _without_duplicates(groups: Iterator[EncodedGroup], seen: set[bytes]) -> Iterator[EncodedGroup]:
    for group in groups:
        documents = []
        for document in group.documents:
            digest = name_digest(name_bytes(document.name))
            if digest in seen:
                group.counts[DUPLICATES] += 1
            else:
                seen.add(digest)
                documents.append(document)
        yield dataclasses.replace(group, documents=documents)
