"""`run.json`: names of corpora and paths may change between two starts of a run, contents may not."""

import pytest
from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.training.run_record import check_record, make_record, write_record
from tests.support.workdirs import run_config


def test_a_run_continues_after_its_corpus_was_renamed(tmp_path):
    config, folder = run_config(tmp_path / "store"), epath.Path(tmp_path)
    store = {"corpus": "my texts", "source": "jsonl", "fingerprint": "f"}
    write_record(folder, make_record(config, {"stores": [store]}))
    check_record(folder, make_record(config, {"stores": [store | {"corpus": "our texts"}]}))
    unnamed = {name: value for name, value in store.items() if name != "corpus"}  # as earlier versions wrote it
    check_record(folder, make_record(config, {"stores": [unnamed]}))
    with pytest.raises(InputError, match=r"data\.stores\[0\]\.fingerprint: 'f' there, 'g' asked for"):
        check_record(folder, make_record(config, {"stores": [store | {"fingerprint": "g"}]}))
