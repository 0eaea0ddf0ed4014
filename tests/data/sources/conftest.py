import pytest

from block_recurrent.config import PrepareConfig
from block_recurrent.data.preparation.prepare import prepare
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.vocabulary import ByteVocabulary


@pytest.fixture
def read_back(tmp_path):
    """Returns a function that prepares a source and returns, for each split, its texts by name and its omissions."""

    def run(source, folder, **options):
        store = options.pop("store", str(tmp_path / "store"))
        config = PrepareConfig(source=source, store=store, input=str(folder), workers=1, **options)
        texts, left_out = {}, {}
        for summary in prepare(config):
            store = TokenStore.open(summary.path)
            split = store.metadata.split
            pieces = [(document, 0, 10**9) for document in range(len(store))]
            texts[split] = {
                name: ByteVocabulary().decode(tokens)
                for name, tokens in zip(store.names, store.read_many(pieces), strict=True)
            }
            left_out[split] = dict(store.metadata.left_out)
        return texts, left_out

    return run


def write_files(root, files):
    """Writes files, bytes or text by relative path, into a folder; returns the folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root
