"""Checks on a sample of documents whether a vocabulary returns the text that it encodes."""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterator, Sequence

from block_recurrent.data.sources.source import Counts, Source
from block_recurrent.data.vocabulary import Vocabulary

_FILES, _DOCUMENTS_PER_FILE, _RECORDS_PER_FILE = 16, 4, 64
_EXCERPT, _EXCERPTS = 2000, 2
_SHOWN = 24
_TOKENS = re.compile(r"\w+|\W", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class RoundTrip:
    """The result of decoding a sample.

    Attributes:
        documents: number of documents in the sample.
        characters: number of characters in the sample.
        lost: number of characters that do not return.
        example: an excerpt of a document and the text that returns for it, or None if everything returns.
    """

    documents: int
    characters: int
    lost: int
    example: tuple[str, str] | None


def warnings(source: Source, splits: Sequence[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    """Returns a warning if some characters of a sample do not return when their ids are decoded.

    Args:
        source: the text.
        splits: splits to sample, in order of preference.
        vocabulary: the vocabulary of the ids.
    """
    result = next((r for r in (check(_sample(source, split), vocabulary) for split in splits) if r.documents), None)
    if result is None or result.example is None:
        return ()
    share = result.lost / result.characters
    shown = f"{share:.2%}" if share >= 0.0001 else "fewer than 0.01%"
    text, returned = result.example
    return (
        f"vocabulary {vocabulary.spec}: {shown} of the characters in a sample of {result.documents} documents do not "
        f"return when decoded, for example {text!r} returns as {returned!r}; `train-vocab` trains a vocabulary that "
        "returns every character",
    )


def check(texts: Iterator[str], vocabulary: Vocabulary) -> RoundTrip:
    """Encodes and decodes excerpts of texts.

    Args:
        texts: whole documents.
        vocabulary: the vocabulary.

    Returns:
        The numbers of documents and characters, and the first example.
    """
    documents = characters = lost = 0
    example = None
    for text in texts:
        documents += 1
        for excerpt in _excerpts(text):
            returned = vocabulary.decode(vocabulary.encode(excerpt))
            characters += len(excerpt)
            if returned != excerpt:
                lost += _lost(excerpt, returned)
                example = example or _example(excerpt, returned)
    return RoundTrip(documents, characters, lost, example)


def _sample(source: Source, split: str) -> Iterator[str]:
    """Yields documents from files that are spread over the split's input. Repairs and omissions are not counted."""
    files = source.files(split)
    for file in files[:: max(1, -(-len(files) // _FILES))]:
        records = itertools.islice(source.records(file, split, Counts()), _RECORDS_PER_FILE)
        documents = (document for record in records for document in source.documents(record, Counts()))
        yield from (document.text for document in itertools.islice(documents, _DOCUMENTS_PER_FILE) if document.text)


def _excerpts(text: str) -> Iterator[str]:
    """Yields the beginning and, from a long text, a part of the middle, cut where a line or word begins."""
    if len(text) <= _EXCERPT * _EXCERPTS:
        yield from (text[start : start + _EXCERPT] for start in range(0, len(text), _EXCERPT))
        return
    yield text[:_EXCERPT]
    middle = re.compile(r"(?<=\s)\S").search(text, len(text) // 2, len(text) - _EXCERPT)
    if middle:
        yield text[middle.start() : middle.start() + _EXCERPT]


def _lost(text: str, returned: str) -> int:
    """Returns the number of characters of a text that are not in the returned text, in order."""
    lost = 0
    before, after = _TOKENS.findall(text), _TOKENS.findall(returned)
    for kind, start, stop, first, last in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind in ("delete", "replace"):
            gone, came = "".join(before[start:stop]), "".join(after[first:last])
            matcher = difflib.SequenceMatcher(None, gone, came, autojunk=False)
            lost += len(gone) - sum(block.size for block in matcher.get_matching_blocks())
    return lost


def _example(text: str, returned: str) -> tuple[str, str]:
    same = next(
        (i for i, (a, b) in enumerate(zip(text, returned, strict=False)) if a != b), min(len(text), len(returned))
    )
    start = max(0, same - _SHOWN // 2)
    return text[start : start + _SHOWN], returned[start : start + _SHOWN]
