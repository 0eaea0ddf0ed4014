"""Vocabularies, which convert text to ids and back: bytes with seqio's ids, or any SentencePiece model."""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from block_recurrent.data.detokenizer import ByteDetokenizer, Detokenizer, PieceDetokenizer
from block_recurrent.data.sources.text import replace_surrogates
from block_recurrent.errors import InputError, first_line

_BLANK = "\u2581"  # SentencePiece's character for a blank
_FIRST_BYTE = 3  # ids 0 (padding), 1 (end of sequence) and 2 (unknown) come before the 256 bytes
_ROW_MULTIPLE = 128  # embedding tables of SentencePiece models are padded to a multiple of this, as T5's is
_T5_PIECES, _T5_EXTRA_IDS = 32_000, 100
# Encoding needs about 45 bytes of memory per character (BPE) or 22 (unigram). Long texts are therefore cut at single
# blanks between letters, where pieces end anyway. With BPE, cutting does not change the ids. Unigram sums the scores of
# a whole text in float32 and near ties depend on the rounding, so cutting may change ids; its limit is so high that
# only enormous books are cut.
_BPE_CHARACTERS, _UNIGRAM_CHARACTERS = 1 << 20, 12_000_000
_CUT = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_CUT_WITHIN = 1 << 16


class Vocabulary(Protocol):
    """Converts text to ids and back. Implementations are picklable: each worker process receives a copy."""

    @property
    def spec(self) -> str:
        """The argument with which `load_vocabulary` returns this vocabulary."""
        ...

    @property
    def size(self) -> int:
        """Number of ids: 0, ..., size - 1."""
        ...

    @property
    def table_size(self) -> int:
        """V, number of rows of the embedding table; at least `size`."""
        ...

    @property
    def unknown_id(self) -> int:
        """Id of text without an id of its own."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of everything that defines the ids."""
        ...

    @property
    def model(self) -> bytes | None:
        """Contents of the model file; None for a vocabulary without one."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """Returns the ids of a text, (n,) integers, without begin or end token. Lone surrogates become U+FFFD."""
        ...

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Returns the text of ids. Invalid UTF-8 becomes U+FFFD; special ids of the byte vocabulary have no text."""
        ...

    def pieces(self, ids: np.ndarray) -> list[bytes]:
        """Returns each id's UTF-8 bytes, blanks included; special ids have none."""
        ...

    def detokenizer(self, context: Sequence[int]) -> Detokenizer:
        """Returns a detokenizer for ids that arrive one at a time after the ids of the context."""
        ...

    def first_token_bytes(self, text: str) -> int:
        """Returns the number of UTF-8 bytes that the text's first token covers; 0 for a text without tokens."""
        ...


class ByteVocabulary:
    """UTF-8 bytes: byte b has id b + 3; ids 0, 1 and 2 are padding, end of sequence and unknown, as in seqio."""

    spec = "bytes"
    size = 256 + _FIRST_BYTE
    table_size = 260
    unknown_id = 2
    fingerprint = hashlib.sha256(b"bytes: id = byte + 3, table 260").hexdigest()
    model = None

    def encode(self, text: str) -> np.ndarray:
        """See `Vocabulary.encode`: (n,) uint16."""
        return np.frombuffer(replace_surrogates(text).encode(), np.uint8) + np.uint16(_FIRST_BYTE)

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """See `Vocabulary.decode`."""
        ids = _as_array(ids)
        ids = ids[(ids >= _FIRST_BYTE) & (ids < self.size)]
        return (ids - _FIRST_BYTE).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def pieces(self, ids: np.ndarray) -> list[bytes]:
        """See `Vocabulary.pieces`."""
        known = ((ids >= _FIRST_BYTE) & (ids < self.size)).tolist()
        return [bytes([i - _FIRST_BYTE]) if k else b"" for i, k in zip(ids.tolist(), known, strict=True)]

    def detokenizer(self, context: Sequence[int]) -> Detokenizer:
        """See `Vocabulary.detokenizer`."""
        return ByteDetokenizer(_FIRST_BYTE, context)

    def first_token_bytes(self, text: str) -> int:
        """See `Vocabulary.first_token_bytes`."""
        return 1 if text else 0


class SentencePieceVocabulary:
    """A SentencePiece model.

    Args:
        path: the model file, local or `gs://`.
        extra_ids: number of ids after the pieces, which no text produces. None means 0, except for a model laid out
            like T5's: 32,000 pieces; ids 0, 1 and 2 are padding, end of sequence and unknown; no begin id, no byte
            pieces. There None means 100, which yields T5's table of 32,128 rows.

    Raises:
        InputError: the file is missing or not a SentencePiece model.
    """

    def __init__(self, path: str, extra_ids: int | None = None):
        self.spec = str(path)
        self.model = _read_model(self.spec)
        self._load()
        self.extra_ids = self._extra_ids_of_t5() if extra_ids is None else extra_ids
        self.fingerprint = hashlib.sha256(self.model + b"\0extra ids: %d" % self.extra_ids).hexdigest()

    def _load(self) -> None:
        import sentencepiece

        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except RuntimeError as error:
            raise InputError(f"vocabulary {self.spec}: not a SentencePiece model ({first_line(error)})") from None

    def __getstate__(self) -> dict[str, Any]:
        kept = ("spec", "fingerprint", "model", "extra_ids")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load()

    def _extra_ids_of_t5(self) -> int:
        model = self._processor
        special = (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id())
        has_bytes = any(model.is_byte(piece) for piece in range(self._pieces))  # T5's has none
        return _T5_EXTRA_IDS if special == (0, 1, 2, -1) and self._pieces == _T5_PIECES and not has_bytes else 0

    @functools.cached_property
    def _pieces(self) -> int:
        return self._processor.get_piece_size()

    @property
    def size(self) -> int:
        """See `Vocabulary.size`."""
        return self._pieces + self.extra_ids

    @property
    def table_size(self) -> int:
        """See `Vocabulary.table_size`."""
        return -(-self.size // _ROW_MULTIPLE) * _ROW_MULTIPLE

    @property
    def unknown_id(self) -> int:
        """See `Vocabulary.unknown_id`."""
        return self._processor.unk_id()

    def encode(self, text: str) -> np.ndarray:
        """See `Vocabulary.encode`: (n,) int32."""
        whole = replace_surrogates(text)
        parts = [self._processor.encode(part, return_type="numpy") for part in self._parts(whole)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, np.int32)])

    def _parts(self, text: str) -> Iterator[str]:
        start = 0
        while len(text) - start > self._longest and self._blank is not None:
            end = start + self._longest
            cuts = [match.start() for match in _CUT.finditer(text, max(start, end - _CUT_WITHIN), end)]
            if not cuts:
                break
            yield text[start : cuts[-1]]
            start = cuts[-1] + self._blank
        yield text[start:]

    @functools.cached_property
    def _longest(self) -> int:
        """Number of characters to encode at once. Only a BPE model's scores, the ranks of merges, are whole numbers."""
        score = self._processor.get_score(self._pieces - 1)
        return _BPE_CHARACTERS if score == int(score) else _UNIGRAM_CHARACTERS

    @functools.cached_property
    def _blank(self) -> int | None:
        """Characters to skip at a cut: 1 if the model prepends a blank to every text, else 0. None means never cut."""
        names = (self._processor.id_to_piece(piece) for piece in range(self._pieces))
        if any(_BLANK in name.strip(_BLANK) for name in names):
            return None  # some pieces contain blanks
        whole = self._processor.encode("the text")
        for skipped in (1, 0):
            if whole == self._processor.encode("the") + self._processor.encode(" text"[skipped:]):
                return skipped
        return None

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """See `Vocabulary.decode`; ids without a piece decode as the unknown id."""
        ids = _as_array(ids)
        known = np.where((ids >= 0) & (ids < self._pieces), ids, self.unknown_id)
        return self._processor.decode(known.tolist())

    def pieces(self, ids: np.ndarray) -> list[bytes]:
        """See `Vocabulary.pieces`."""
        table = self._piece_bytes
        return [table[i] if 0 <= i < len(table) else b"" for i in ids.tolist()]

    @functools.cached_property
    def _piece_bytes(self) -> list[bytes]:
        model, table = self._processor, []
        for piece in range(self._pieces):
            name = model.id_to_piece(piece)
            if model.is_byte(piece):
                table.append(bytes([int(name[3:5], 16)]))  # <0xE2>
            else:
                special = model.is_control(piece) or model.is_unknown(piece) or model.is_unused(piece)
                table.append(b"" if special else name.replace(_BLANK, " ").encode())
        return table

    def detokenizer(self, context: Sequence[int]) -> Detokenizer:
        """See `Vocabulary.detokenizer`."""
        return PieceDetokenizer(self, context)

    def first_token_bytes(self, text: str) -> int:
        """See `Vocabulary.first_token_bytes`; leading blanks that the model drops count as covered."""
        text = replace_surrogates(text)
        # The first token ends long before this, and text after its word cannot move its end.
        stop = text.find(" ", 256, 4096)
        offsets = self._processor.encode(text[: 4096 if stop < 0 else stop], return_type="offset_mapping")["offsets"]
        return len(text[: offsets[0][1]].encode()) if offsets else 0


def load_vocabulary(spec: str) -> Vocabulary:
    """Loads a vocabulary.

    Args:
        spec: `bytes`, or the path of a SentencePiece model.

    Returns:
        The vocabulary.

    Raises:
        InputError: the file does not exist or is not a SentencePiece model.
    """
    return ByteVocabulary() if spec == ByteVocabulary.spec else SentencePieceVocabulary(spec)


def _read_model(path: str) -> bytes:
    try:
        model = epath.Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        message = f"vocabulary {path!r}: no such file; use `bytes` or the path of a SentencePiece model"
        raise InputError(message) from None
    except OSError as error:
        raise InputError(f"vocabulary {path!r}: cannot be read: {error.strerror or error}") from None
    if not model:
        raise InputError(f"vocabulary {path}: not a SentencePiece model (the file is empty)")
    return model


def _as_array(ids: Iterable[int] | np.ndarray) -> np.ndarray:
    return np.asarray(ids if isinstance(ids, np.ndarray) else list(ids)).astype(np.int64)
