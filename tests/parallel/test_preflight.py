"""Checks between processes; a second process is pretended here, real ones are in tests/training."""

import numpy as np
import pytest
from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.parallel import preflight, processes


@pytest.fixture
def two_processes(monkeypatch):
    """Pretends a second process, which answers with the function that the test sets."""
    answers = {"other": lambda value: value}
    monkeypatch.setattr(preflight.jax, "process_count", lambda: 2)
    gathered = lambda value: np.stack([value, answers["other"](value)])  # noqa: E731
    for module in (preflight, processes):
        monkeypatch.setattr(module.multihost_utils, "process_allgather", gathered)
    return answers


def test_equal_processes_that_can_write_pass_and_leave_nothing(two_processes, tmp_path):
    preflight.check(epath.Path(tmp_path / "run"))
    assert list((tmp_path / "run").iterdir()) == []


def test_a_difference_is_named_with_its_process(two_processes):
    two_processes["other"] = lambda value: value + 1
    with pytest.raises(InputError, match=r"versions differ between processes: process\(es\) 1 from process 0; process"):
        preflight.check_processes(["train"])


def test_a_process_that_cannot_write_stops_all(two_processes, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/run: every process must be able to write there: process 0: .*file"):
        preflight.check(epath.Path(tmp_path / "file" / "run"))
    two_processes["other"] = lambda value: np.zeros_like(value) if value.dtype == bool else value
    with pytest.raises(InputError, match="another process cannot write there; see its output"):
        preflight.check(epath.Path(tmp_path / "run"))
