"""Configuration of preparation and of batches."""

import dataclasses
from collections.abc import Mapping

from block_recurrent.validation import check_integers, check_numbers, check_text_tuples, check_texts, refuse


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Which documents become which token store.

    Attributes:
        source: name of the text source; `prepare --list` shows them.
        store: folder to write, local or `gs://`; each split becomes a token store of its own below it.
        input: where the source's text lies, a folder or a file, local or `gs://`; None for sources that need none.
        splits: the splits to prepare; None means all that the source has.
        vocabulary: `bytes`, or the path of a SentencePiece model.
        validation_percent: share of documents, of a corpus that is not divided into splits already.
        test_percent: likewise.
        extensions: endings of the files to read, with their dots; None means the source's own choice.
        text_field: of JSON lines, the field with the text.
        name_field: of JSON lines, the field with a unique name; None means file and line number.
        repository_depth: of a folder of repositories, 1 for `<repository>`, 2 for `<owner>/<repository>`.
        workers: processes that tokenise; None means one for each core. The store is the same for any number.

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

    def __post_init__(self):
        check_texts(self, ("source", "store", "vocabulary", "text_field"))
        check_texts(self, (field for field in ("input", "name_field") if getattr(self, field) is not None))
        check_text_tuples(self, ("splits", "extensions"))
        check_numbers(self, ("validation_percent", "test_percent"), 0, 100)
        if self.validation_percent + self.test_percent >= 100:
            raise refuse(self, "test_percent", "such that training documents are left")
        check_integers(self, ("repository_depth",), 1)
        if self.workers is not None:
            check_integers(self, ("workers",), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which tokens reach the model, and in which shape.

    Attributes:
        store: folder that `prepare` wrote.
        mixture: folders to train on instead, each with a weight: how often a row's next document comes from it.
            Evaluation reads `store`.
        min_document_tokens: shorter documents are left out of training.
        max_document_tokens: longer documents are read up to here in training; None means to their end.
        segment_length: tokens of one row in one step; a multiple of the model's window.
        batch_size: rows over all hosts; each reads a document of its own.
        train_split: the split to train on.
        eval_split: the split to evaluate on during training.
        seed: of the document order.

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
        check_integers(self, ("segment_length", "batch_size"), 1)
        check_integers(self, ("seed",), 0)
        check_integers(self, ("min_document_tokens",), 2)
        if self.max_document_tokens is not None:
            check_integers(self, ("max_document_tokens",), self.min_document_tokens)
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
