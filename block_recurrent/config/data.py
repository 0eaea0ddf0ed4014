"""Configuration of data preparation and of batches."""

import dataclasses
from collections.abc import Mapping

from block_recurrent.files import expand
from block_recurrent.validation import (
    LARGEST_SEED,
    check_integers,
    check_numbers,
    check_text_tuples,
    check_texts,
    expand_paths,
    refuse,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Settings of `prepare`, which tokenises documents into token stores.

    Attributes:
        source: name of the text source; `prepare --list` prints the names.
        corpus: name of the text in results, reports and model cards. None means the corpus that the source is made for,
            such as PG19 for `pg19`, otherwise the source's name. Set it when a source reads another corpus: only text
            with the name of the paper's corpus, or without a name, is compared with the paper.
        store: output folder, local or `gs://`. It holds one token store per split. In all paths `~` is the home folder.
        input: folder or file of the source's text, local or `gs://`; None for a source without an input.
        splits: splits to prepare; None means all splits of the source.
        vocabulary: `bytes`, or the path of a SentencePiece model.
        validation_percent: percentage of the documents in the validation split, from 0 to below 100; used by sources
            without splits of their own. With `test_percent` it must leave documents for training.
        test_percent: percentage of the documents in the test split; as `validation_percent`.
        extensions: endings of the file names to read, with their dots, such as `(".py",)`; used by sources that read
            folders. None means the source's default.
        text_field: field of a JSON line that holds the text; used by JSON lines.
        name_field: field of a JSON line that holds the unique name of the document; used by JSON lines. None means
            file and line number.
        repository_depth: depth of a repository below `input`: 1 for `<repository>`, 2 for `<owner>/<repository>`; used
            by sources that read repositories.
        workers: number of processes that tokenise; None means one per core. The store does not depend on it.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    source: str
    store: str
    input: str | None = None
    splits: tuple[str, ...] | None = None
    vocabulary: str = "bytes"
    validation_percent: float = 5
    test_percent: float = 5
    extensions: tuple[str, ...] | None = None
    text_field: str = "text"
    name_field: str | None = None
    repository_depth: int = 1
    workers: int | None = None
    corpus: str | None = None

    def __post_init__(self):
        check_texts(self, ("source", "store", "vocabulary", "text_field"))
        check_texts(self, (field for field in ("input", "name_field", "corpus") if getattr(self, field) is not None))
        expand_paths(self, ("store", "input", "vocabulary"))
        check_text_tuples(self, ("splits", "extensions"))
        check_numbers(self, ("validation_percent", "test_percent"), 0, 100)
        if self.validation_percent + self.test_percent >= 100:
            raise refuse(self, "test_percent", "such that training documents are left")
        check_integers(self, ("repository_depth",), 1)
        if self.workers is not None:
            check_integers(self, ("workers",), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Token stores of training and evaluation, and the shape of the batches.

    Attributes:
        store: folder that `prepare` wrote, local or `gs://`; a leading `~` is the home folder.
        segment_length: T, tokens of a row in one step; a multiple of `ModelConfig.window_length`. Recurrent layers need
            at least two windows.
        batch_size: B, rows of a step over all hosts. Each row has a document of its own.
        train_split: split for training.
        eval_split: split for evaluation during training.
        seed: seed of the order of the training documents; at least 0.
        mixture: stores to train on instead of `store`, as a dict from folder to positive weight. The weights are the
            relative frequencies with which a row's next document comes from each store. Evaluation uses `store`. None
            means training on `store`.
        min_document_tokens: length of the shortest training document, in tokens, at least 2; shorter ones are skipped.
        max_document_tokens: length at which training documents are truncated, in tokens; at least
            `min_document_tokens`. None means no limit.

    Raises:
        InputError: a field has a value that is not allowed.
    """

    store: str
    segment_length: int
    batch_size: int
    train_split: str = "train"
    eval_split: str = "validation"
    seed: int = 0
    mixture: Mapping[str, float] | None = None
    min_document_tokens: int = 2
    max_document_tokens: int | None = None

    def __post_init__(self):
        check_texts(self, ("store", "train_split", "eval_split"))
        expand_paths(self, ("store",))
        check_integers(self, ("segment_length", "batch_size"), 1)
        check_integers(self, ("seed",), 0, LARGEST_SEED)
        check_integers(self, ("min_document_tokens",), 2)
        if self.max_document_tokens is not None:
            check_integers(self, ("max_document_tokens",), self.min_document_tokens, 2**63 - 1)
        if self.mixture is not None:
            self._check_mixture()

    def _check_mixture(self) -> None:
        allowed = "None or a dict of folders and positive weights"
        if not isinstance(self.mixture, Mapping) or not self.mixture:
            raise refuse(self, "mixture", allowed)
        for folder, weight in self.mixture.items():
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not isinstance(folder, str) or not folder or not number or not 0 < weight < float("inf"):
                raise refuse(self, "mixture", allowed)
        folders = {expand(folder): weight for folder, weight in self.mixture.items()}
        if len(folders) < len(self.mixture):
            raise refuse(self, "mixture", f"{allowed}; one folder is named twice")
        object.__setattr__(self, "mixture", folders)
