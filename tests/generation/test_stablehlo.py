"""Exported functions run in a process without this package."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from block_recurrent.errors import InputError
from block_recurrent.generation.generator import Generator
from block_recurrent.generation.sampling import GREEDY
from block_recurrent.generation.stablehlo import export_functions
from block_recurrent.model.language_model import init_params
from block_recurrent.training.saved_run import SavedRun
from tests.support.workdirs import run_config

SERVER = Path(__file__).parents[1] / "support" / "serve_exported.py"


MODELS: dict[str, dict[str, Any]] = {
    "recurrent": {},
    "bfloat16": {"dtype": "bfloat16"},
    "vanilla": {"window_length": None, "recurrent_layers": ()},
    "memory": {"recurrent_layers": (), "memory_layers": (0,), "memory_size": 32, "memory_neighbors": 4},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "vanilla" else pytest.mark.slow) for name in MODELS]
)
def test_exported_functions_produce_the_same_tokens_in_a_new_process(store_folder, tmp_path, name):
    from block_recurrent.data.vocabulary import ByteVocabulary

    run = run_config(store_folder)
    run = dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, **MODELS[name]),
        data=dataclasses.replace(run.data, segment_length=64 if name == "vanilla" else 16),
    )
    vocabulary = {"spec": "bytes", "fingerprint": ByteVocabulary.fingerprint}
    store = {"source": "none", "split": "train", "vocabulary": vocabulary, "fingerprint": "none", "counts": {}}
    facts = {"stores": [store]}
    saved = SavedRun(run, facts, 0, init_params(run.model, jax.random.key(0)))
    saved.export(tmp_path)
    arguments = {
        "config": run.model,
        "segment_length": run.data.segment_length,
        "vocabulary_size": ByteVocabulary.size,
    }
    export_functions(tmp_path, **arguments)
    generator = Generator.of_run(saved)
    prompts = ["7 times 8 is", "a longer prompt than a segment of the run", "x"]
    ours = [list(c.tokens) for c in generator.generate(prompts, num_tokens=20, sampling=GREEDY)]
    ids = json.dumps([generator.encode(prompt).tolist() for prompt in prompts])
    command = [sys.executable, str(SERVER), str(tmp_path), ids, "20"]
    # Outside the checkout, where the package cannot be imported by accident; the server asserts it too.
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(out.stdout) == ours
    assert json.loads((tmp_path / "functions.json").read_text())["platforms"] == ["cpu", "tpu", "cuda"]
    with pytest.raises(InputError, match=r"functions.json is there already"):
        export_functions(tmp_path, **arguments)
