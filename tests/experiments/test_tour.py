"""The notebook experiments/tour.ipynb, executed from top to bottom in a kernel of its own."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "experiments" / "tour.ipynb"


def test_the_notebook_is_committed_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    for cell in code:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_notebook_runs(tmp_path, monkeypatch):
    """Executes every cell, with a short training; a cell that raises fails the test."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for name, value in {"TOUR_STEPS": "20", "TMPDIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # eight virtual devices and no optimisation, in tests only
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    printed = "".join(_texts(notebook))
    before, after = map(float, re.findall(r"(?:before|after) training: ([\d.]+)", printed))
    assert after < before
    carried, reset = map(float, re.findall(r"(?:carried|every segment): ([\d.]+)", printed))
    assert carried < reset
    assert "--- seed 1" in printed


def _texts(notebook: Any) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output.get("text", "") for output in outputs]
