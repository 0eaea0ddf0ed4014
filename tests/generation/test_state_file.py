"""Saved states: round trip, refusals, full disks and files of earlier versions."""

import dataclasses
import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from block_recurrent import files
from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.generation.decode_state import DecodeState
from block_recurrent.generation.state_file import ModelIdentity, check_room, load_state, save_state
from block_recurrent.trees import named_leaves
from tests.support.architectures import CACHED, perturbed_params, random_tokens
from tests.support.decoding import prefill_rows

CONFIG = CACHED["lstm_dual"]


@pytest.fixture(scope="module")
def params() -> Any:
    return perturbed_params(CONFIG)


@pytest.fixture(scope="module")
def identity(params) -> ModelIdentity:
    return ModelIdentity.of(CONFIG, params, "a fingerprint")


@pytest.fixture(scope="module")
def state(params) -> DecodeState:
    return prefill_rows(CONFIG, params, np.asarray(random_tokens(CONFIG, 2, 21)), [21, 11])


@pytest.fixture
def path(tmp_path, state, identity) -> Path:
    """A saved state."""
    path = tmp_path / "state"
    save_state(path, state, identity)
    return path


def read_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def change_config(header: dict[str, str], **changes: Any) -> dict[str, str]:
    """Changes fields of the header's configuration; removes those that are `...`."""
    model = json.loads(header["model"])
    config = {name: value for name, value in (model["config"] | changes).items() if value is not ...}
    return header | {"model": json.dumps(model | {"config": config})}


def assert_equal(loaded: DecodeState, state: DecodeState) -> None:
    jax.tree.map(np.testing.assert_array_equal, loaded, state)
    assert jax.tree.map(lambda leaf: leaf.dtype, loaded) == jax.tree.map(lambda leaf: leaf.dtype, state)


def test_a_state_is_read_back_bit_for_bit(path, state, identity):
    assert_equal(load_state(path, state, identity), state)
    arrays, header = read_file(path)
    assert header["format"] == "block_recurrent decoding state, version 2"
    assert arrays.keys() == named_leaves(state).keys()
    assert "model_state/layers/1/recurrent" in arrays
    assert os.listdir(path.parent) == [path.name]


def test_a_bfloat16_state_is_read_back_bit_for_bit(params, tmp_path):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    state = prefill_rows(config, params, np.asarray(random_tokens(config, 1, 11)), [11])
    identity = ModelIdentity.of(config, params, "a fingerprint")
    save_state(tmp_path / "state", state, identity)
    assert_equal(load_state(tmp_path / "state", state, identity), state)


def test_another_number_of_rows_is_read(path, state, identity):
    like = jax.tree.map(lambda leaf: leaf[:1], state)
    assert_equal(load_state(path, like, identity), state)


@pytest.mark.parametrize(
    ("config", "scale", "fingerprint", "message"),
    [
        (CACHED["lstm_skip"], 1, "a fingerprint", r"another model \(ModelConfig.cell: dual in the file, skip here"),
        (CONFIG, 1.0001, "a fingerprint", r"another model \(parameters: "),
        (CONFIG, 1, "another", r"another model \(vocabulary: a fingerprint in the file, another here\)"),
    ],
    ids=["configuration", "parameters", "vocabulary"],
)
def test_a_state_of_another_model_is_refused_by_name(path, state, params, config, scale, fingerprint, message):
    other = jax.tree.map(lambda leaf: leaf * scale, params)
    with pytest.raises(InputError, match=message):
        load_state(path, state, ModelIdentity.of(config, other, fingerprint))


def test_a_field_that_does_not_change_results_may_differ(path, state, params):
    config = dataclasses.replace(CONFIG, remat="full", loss_chunk=8)
    assert_equal(load_state(path, state, ModelIdentity.of(config, params, "a fingerprint")), state)


def test_a_damaged_or_missing_file_is_refused(path, state, identity):
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read as a decoding state"):
        load_state(path, state, identity)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read as a decoding state"):
        load_state(path, state, identity)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read as a decoding state"):
        load_state(path, state, identity)


def test_another_format_is_refused(path, state, identity):
    arrays, header = read_file(path)
    save_file(arrays, path)
    with pytest.raises(InputError, match=r"not a decoding state .* its format is None"):
        load_state(path, state, identity)
    save_file(arrays, path, header | {"format": "block_recurrent decoding state, version 3"})
    with pytest.raises(InputError, match=r"not a decoding state .* version 3'"):
        load_state(path, state, identity)
    for model in ("{", "[]", '{"config": {}}'):
        save_file(arrays, path, header | {"model": model})
        with pytest.raises(InputError, match="the header cannot be read"):
            load_state(path, state, identity)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays | {"more": arrays["filled"]},
        lambda arrays: {name: array for name, array in arrays.items() if name != "tokens"},
        lambda arrays: arrays | {"tokens": arrays["tokens"][:1]},
        lambda arrays: arrays | {"tokens": arrays["tokens"][:, 1:]},
        lambda arrays: arrays | {"tokens": arrays["tokens"].astype(np.int64)},
    ],
    ids=["more", "missing", "rows", "shape", "dtype"],
)
def test_arrays_that_do_not_fit_are_refused(path, state, identity, change):
    arrays, header = read_file(path)
    save_file(change(arrays), path, header)
    with pytest.raises(InputError, match=r"not a state of this model: array .* differs"):
        load_state(path, state, identity)


def test_a_file_of_version_1_is_read(path, state, identity):
    arrays, header = read_file(path)
    older = {name.replace("model_state/", "memory/"): array for name, array in arrays.items()}
    assert older.keys() != arrays.keys()
    save_file(older, path, header | {"format": "block_recurrent decoding state, version 1"})
    assert_equal(load_state(path, state, identity), state)
    save_file(older, path, header)  # the names of version 1 in a file of version 2
    with pytest.raises(InputError, match=r"array memory/.* differs"):
        load_state(path, state, identity)


def test_a_field_younger_than_the_file_has_its_default(path, state, params, identity):
    arrays, header = read_file(path)
    save_file(arrays, path, change_config(header, gate_equations=..., recurrent_layers=...))
    with pytest.raises(InputError, match=r"another model \(ModelConfig.recurrent_layers: \[\] in the file, \[1\] here"):
        load_state(path, state, identity)
    save_file(arrays, path, change_config(header, gate_equations=..., feedback=...))
    assert_equal(load_state(path, state, identity), state)
    other = ModelIdentity.of(dataclasses.replace(CONFIG, gate_equations="paper"), params, "a fingerprint")
    with pytest.raises(InputError, match="gate_equations: official in the file, paper here"):
        load_state(path, state, other)


def test_a_field_that_this_version_does_not_know_is_refused(path, state, identity):
    arrays, header = read_file(path)
    save_file(arrays, path, change_config(header, invented=3))
    with pytest.raises(InputError, match=r"ModelConfig.invented: 3 in the file, None here"):
        load_state(path, state, identity)


def test_the_identity_names_every_field_that_decides_results(params, identity):
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    training = {"dropout_rate", "attention_dropout_rate", "gate_init_bias"}
    execution = {"remat", "scan_layers", "loss_chunk", "attention_kernel"}
    assert set(identity.config) == fields - training - execution


def test_a_write_that_fails_is_one_error_and_keeps_the_old_file(path, state, identity, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(files.os, "fsync", full)
    message = r"the state cannot be written: No space left on device \(the disk is full; nothing was changed\)"
    with pytest.raises(InputError, match=message):
        save_state(path, state, identity)
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before


def test_room_is_checked_before_the_work(tmp_path, state):
    check_room(tmp_path / "state", state)
    with pytest.raises(InputError, match="is a folder; name a file"):
        check_room(tmp_path, state)
    with pytest.raises(InputError, match="does not exist"):
        check_room(tmp_path / "missing" / "state", state)
    huge = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1 << 50, *leaf.shape[1:]), leaf.dtype), state)
    with pytest.raises(InputError, match=r"the state takes .* bytes, but only .* bytes are free"):
        check_room(tmp_path / "state", huge)


def test_a_full_disk_is_one_error_and_loses_nothing(tmp_path, state, identity):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        path = tmp_path / "state"
        path.write_bytes(b"older")
        with pytest.raises(InputError, match=r"the state takes .* bytes, but only .* bytes are free there"):
            check_room(path, state)
        large = jax.tree.map(lambda leaf: np.repeat(leaf, 99, axis=0), state)
        with pytest.raises(InputError, match="disk is full; nothing was changed"):
            save_state(path, large, identity)
        assert os.listdir(tmp_path) == ["state"]
        assert path.read_bytes() == b"older"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
