"""Opens a split's store for a model."""

from etils import epath

from block_recurrent.config import DataConfig
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError

_VERIFIED_BYTES = 256 << 20  # stores up to this size are verified when they are opened, which takes about a second


def open_split(config: DataConfig, split: str, *, vocab_size: int, vocabulary: str | None = None) -> TokenStore:
    """Opens a split's store and checks that it fits a model.

    Small stores are verified at once. In large ones, damage is found when the damaged part is read.

    Args:
        config: `store` is the folder that `prepare` wrote.
        split: name of the split.
        vocab_size: rows of the model's embedding table.
        vocabulary: fingerprint of the vocabulary that the model was trained with; None accepts any.

    Returns:
        The store.

    Raises:
        InputError: the split does not exist, is damaged, has another vocabulary, or has more ids than the model.
    """
    root = epath.Path(config.store)
    if not root.exists():
        raise InputError(
            f"DataConfig.store = {config.store!r}: not there; `python -m block_recurrent prepare` with the same "
            "--gin-file creates it"
        )
    store = TokenStore.open(root / split)
    if store.vocabulary.size > vocab_size:
        raise InputError(
            f"ModelConfig.vocab_size = {vocab_size}: must be at least {store.vocabulary.size}, the ids of vocabulary "
            f"{store.vocabulary.spec!r} in {store.path} (usual: {store.vocabulary.table_size})"
        )
    if vocabulary not in (None, store.vocabulary.fingerprint):
        raise InputError(
            f"{store.path}: created with vocabulary {store.vocabulary.spec!r}, fingerprint "
            f"{store.vocabulary.fingerprint}; the model was trained with {vocabulary}; prepare the text with the "
            "vocabulary of the model"
        )
    if sum(size for size, _ in store.metadata.files.values()) <= _VERIFIED_BYTES:
        store.verify()
    return store
