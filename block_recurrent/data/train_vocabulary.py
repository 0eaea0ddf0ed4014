"""Trains a SentencePiece vocabulary for prose and code on a text source."""

import dataclasses
import hashlib
import io
import os
from collections.abc import Iterator

from etils import epath

from block_recurrent import files
from block_recurrent.data.sources.source import Counts, Source
from block_recurrent.data.vocabulary import SentencePieceVocabulary
from block_recurrent.errors import InputError
from block_recurrent.progress import ProgressCallback

_LONGEST_SENTENCE = 4096  # characters; the trainer ignores longer ones
# Byte fallback leaves no text unknown. Decoding returns every character except U+2581, which SentencePiece itself uses
# for the blank: nothing is normalised, blanks are kept and may form pieces of their own (indentation), and a line end
# is a piece. Digits are single pieces, so that equal numbers have equal ids. The special ids are T5's and seqio's.
_SETTINGS = {
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
    "allow_whitespace_only_pieces": True,
    "split_digits": True,
    "user_defined_symbols": ["\n"],
    "pad_id": 0,
    "eos_id": 1,
    "unk_id": 2,
    "bos_id": -1,
    "max_sentence_length": 4 * _LONGEST_SENTENCE,  # the trainer counts bytes
    "minloglevel": 2,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedVocabulary:
    """A trained vocabulary and its statistics.

    Attributes:
        path: the model file.
        vocabulary: the vocabulary, loaded from that file.
        characters: number of characters of the training text.
        characters_per_token: compression, measured on the end of the training text.
    """

    path: epath.Path
    vocabulary: SentencePieceVocabulary
    characters: int
    characters_per_token: float


def train_vocabulary(
    source: Source,
    path: str,
    *,
    size: int = 32_000,
    model_type: str = "bpe",
    sample_bytes: int = 200_000_000,
    split: str = "train",
    progress: ProgressCallback | None = None,
) -> TrainedVocabulary:
    """Trains a model with byte fallback on a fixed sample of the source's records.

    Args:
        source: the text; see `load_source`.
        path: the model file to write, local or `gs://`; it must not exist.
        size: number of pieces, including the special ones and 256 bytes. 32,000 pieces fill a table of 32,000 rows.
        model_type: `bpe` (deterministic, and 25 times as fast on 3 MB) or `unigram`.
        sample_bytes: approximate size of the sample; training needs about ten times as much memory.
        split: the split to read.
        progress: called with (bytes sampled, bytes to sample) while reading, not during the training itself.

    Returns:
        The vocabulary and its statistics.

    Raises:
        InputError: the path exists or cannot be written, or the source has too little text for that many pieces.
    """
    target = epath.Path(path)
    if target.exists():
        raise InputError(f"vocabulary {path}: exists already; remove it or choose another path")
    if model_type not in ("bpe", "unigram"):
        raise InputError(f"model_type = {model_type!r}: must be 'bpe' or 'unigram'")
    if split not in source.splits:
        raise InputError(f"split = {split!r}: source {source.name} has {', '.join(source.splits)}")
    sample = _Sample(source, split, sample_bytes, progress)
    model = _train(sample, size, model_type)
    _write(target, model)
    vocabulary = SentencePieceVocabulary(path)
    ids = vocabulary.encode(sample.last)
    return TrainedVocabulary(
        path=target,
        vocabulary=vocabulary,
        characters=sample.characters,
        characters_per_token=len(sample.last) / max(1, len(ids)),
    )


class _Sample:
    """Lines of the sampled records. A hash of the name selects records, which spreads the sample over the source."""

    def __init__(self, source: Source, split: str, wanted: int, progress: ProgressCallback | None):
        self._source, self._split = source, split
        self._wanted = min(wanted, source.total(split))
        self._share = wanted / max(1, source.total(split))
        self._progress = progress
        self.characters = 0
        self.last = ""

    def __iter__(self) -> Iterator[str]:
        counts, read = Counts(), 0
        for index, record in enumerate(self._source.walk(self._split, counts)):
            if read >= self._wanted:
                return
            if _share_of(f"{record.name} {index}") >= self._share:
                continue
            for document in self._source.documents(record, counts):
                self.characters += len(document.text)
                self.last = document.text[-100_000:]
                yield from _sentences(document.text)
            read += record.size
            if self._progress:
                self._progress(min(read, self._wanted), self._wanted)


def _share_of(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "backslashreplace")).digest()[:8], "big") / 2**64


def _sentences(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        for start in range(0, len(line), _LONGEST_SENTENCE):
            yield line[start : start + _LONGEST_SENTENCE]


def _train(sentences: Iterator[str] | _Sample, size: int, model_type: str) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=size,
            model_type=model_type,
            num_threads=os.cpu_count() or 1,
            **_SETTINGS,
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].split("] ")[-1]  # before it: places in SentencePiece's code
        raise InputError(f"cannot train a vocabulary of size {size}: {reason}") from None
    return model.getvalue()


def _write(target: epath.Path, model: bytes) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(target, model)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from None
