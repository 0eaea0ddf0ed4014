"""The vocabulary of a run's data, whose file the workdir keeps."""

from collections.abc import Callable, Sequence

from etils import epath

from block_recurrent.data.recorded_vocabulary import load_recorded_vocabulary
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.errors import InputError


def find_vocabulary(
    stores: Sequence[TokenStore], workdir: epath.Path, given: str | None, notify: Callable[[str], None]
) -> Vocabulary | None:
    """Finds the vocabulary of the training data.

    Training does not need it, so a run without it starts with a warning.

    Args:
        stores: stores of the training data, all with the same vocabulary.
        workdir: folder of the run, which has a copy of the file if the run continues.
        given: the vocabulary's file; None searches the stores, the workdir and the recorded path.
        notify: prints a warning.

    Returns:
        The vocabulary; None if it is not found.

    Raises:
        InputError: the given file is another vocabulary.
    """
    recorded = stores[0].vocabulary
    folders = [*(store.path for store in stores), workdir]
    try:
        return load_recorded_vocabulary(recorded.spec, recorded.fingerprint, given=given, folders=folders)
    except InputError as error:
        if given is not None:
            raise
        notify(f"warning: the run keeps no vocabulary, which `generate` and `score` need: {error}")
        return None
