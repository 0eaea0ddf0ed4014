"""Opening the split that a run reads."""

from etils import epath

from block_recurrent.config import DataConfig
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError

_VERIFIED_BYTES = 256 << 20  # a store up to this size is read and checked whole before a run begins: about a second


def open_split(config: DataConfig, split: str, *, vocab_size: int, vocabulary: str | None = None) -> TokenStore:
    """Opens a split for a model.

    Args:
        config: names the prepared store.
        split: which part of it.
        vocab_size: rows of the model's embedding table.
        vocabulary: fingerprint of the vocabulary that the model was trained with; None accepts any.

    Returns:
        The store; its content is verified unless it is large, in which case damage is met when it is read.

    Raises:
        InputError: the split is not there, is damaged, has another vocabulary or more token ids than the model.
    """
    root = epath.Path(config.store)
    if not root.exists():
        raise InputError(
            f"DataConfig.store = {config.store!r}: not there; `python -m block_recurrent prepare` with the same "
            "--gin_file makes it"
        )
    store = TokenStore.open(root / split)
    if store.vocabulary.size > vocab_size:
        raise InputError(
            f"ModelConfig.vocab_size = {vocab_size}: must be at least {store.vocabulary.size}, the ids of vocabulary "
            f"{store.vocabulary.spec!r} in {store.path} (usual: {store.vocabulary.table_size})"
        )
    if vocabulary not in (None, store.vocabulary.fingerprint):
        raise InputError(
            f"{store.path}: made with vocabulary {store.vocabulary.spec!r}, fingerprint "
            f"{store.vocabulary.fingerprint}; the model was trained with {vocabulary}"
        )
    if sum(size for size, _ in store.metadata.files.values()) <= _VERIFIED_BYTES:
        store.verify()
    return store
