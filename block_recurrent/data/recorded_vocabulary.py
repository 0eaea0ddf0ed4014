"""The vocabulary of a store, a run or an export, and the copy of its file in their folders."""

import os
from collections.abc import Sequence

from etils import epath

from block_recurrent.data.vocabulary import ByteVocabulary, Vocabulary, load_vocabulary
from block_recurrent.errors import InputError
from block_recurrent.files import write_whole

VOCABULARY_FILE = "vocabulary.model"


def load_recorded_vocabulary(
    spec: str, fingerprint: str, *, given: str | None = None, folders: Sequence[os.PathLike[str] | str] = ()
) -> Vocabulary:
    """Loads the vocabulary that a store, a run or an export was created with.

    Args:
        spec: the recorded spec.
        fingerprint: the recorded fingerprint; a vocabulary with another one is never returned.
        given: spec of the vocabulary to load, such as that of `--vocabulary`; None searches for the file.
        folders: folders that may have a copy of the file; they are searched before the recorded path.

    Returns:
        The vocabulary.

    Raises:
        InputError: the given vocabulary is another one, or no file with the vocabulary is found.
    """
    if given is not None:
        return _given(given, spec, fingerprint)
    if fingerprint == ByteVocabulary.fingerprint:
        return ByteVocabulary()
    copies = [epath.Path(folder) / VOCABULARY_FILE for folder in folders]
    failures = []
    for path in (*(os.fspath(copy) for copy in copies if copy.exists()), spec):
        try:
            vocabulary = load_vocabulary(path)
        except InputError as error:
            failures.append(str(error))
            continue
        if vocabulary.fingerprint == fingerprint:
            return vocabulary
        failures.append(f"vocabulary {path!r} has fingerprint {vocabulary.fingerprint}")
    raise InputError(
        f"{'; '.join(failures)}; the tokens were created with fingerprint {fingerprint}. Name the original file with "
        "--vocabulary FILE, or restore it"
    )


def _given(given: str, spec: str, fingerprint: str) -> Vocabulary:
    vocabulary = load_vocabulary(given)
    if vocabulary.fingerprint != fingerprint:
        raise InputError(
            f"--vocabulary {given}: has fingerprint {vocabulary.fingerprint}, but the tokens were created with "
            f"{fingerprint} (vocabulary {spec!r}). Name the file that the data was prepared with; to use another "
            "vocabulary, prepare the data and train again"
        )
    return vocabulary


def keep_vocabulary(vocabulary: Vocabulary, folder: os.PathLike[str] | str) -> None:
    """Copies a vocabulary's file into a folder; a vocabulary without a file needs none.

    Raises:
        InputError: the folder has another vocabulary's file, which is never overwritten.
    """
    if vocabulary.model is None:
        return
    path = epath.Path(folder) / VOCABULARY_FILE
    if not path.exists():
        write_whole(path, vocabulary.model)
    elif path.read_bytes() != vocabulary.model:
        raise InputError(
            f"{path}: is not the vocabulary with fingerprint {vocabulary.fingerprint} (from {vocabulary.spec!r}); move "
            "that file away"
        )
