import json
import os
from pathlib import Path

import numpy as np
import pytest

from block_recurrent.cli.main import main
from block_recurrent.errors import InputError
from block_recurrent.interop.meliad import convert_params, model_config
from block_recurrent.interop.parity import LIMITS, check_fixture

FIXTURES = Path(__file__).parents[1] / "fixtures"
SHARED = [Path(__file__).parents[3] / "shared" / name for name in ("parity", "parity_memory")]
# All fixtures, if the folders exist.
FILES = sorted(file for folder in ([f for f in SHARED if f.is_dir()] or [FIXTURES]) for file in folder.glob("*.npz"))
SMALL = FIXTURES / "xl.npz"
WITH_MEMORY = FIXTURES / "memory_layer0_many_neighbors.npz"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_model_equals_the_official_code(path):
    parity = check_fixture(path)
    assert parity.passed, (parity.errors, parity.places)
    assert all(parity.places[kind] for kind in ("logits", "caches", "loss", "gradients"))
    assert bool(parity.places["memory"]) == path.stem.startswith("memory_")


@pytest.mark.parametrize(
    "path",
    [SMALL, *(pytest.param(path, marks=pytest.mark.slow) for path in FILES if path != SMALL)],
    ids=lambda path: path.stem,
)
def test_the_model_with_the_fused_kernel_equals_the_official_code(path):
    parity = check_fixture(path, attention_kernel="fused")
    assert parity.passed, (parity.errors, parity.places)


def changed(tmp_path: Path, **entries: np.ndarray | None) -> Path:
    """Writes a copy of a fixture with other entries; None removes an entry."""
    return changed_copy(tmp_path, SMALL, entries)


def changed_copy(tmp_path: Path, source: Path, entries: dict[str, np.ndarray | None]) -> Path:
    with np.load(source) as archive:
        content = {name: archive[name] for name in archive.files} | entries
    path = tmp_path / "changed.npz"
    np.savez(path, allow_pickle=False, **{name: entry for name, entry in content.items() if entry is not None})
    return path


def spoil(kind: str) -> dict[str, np.ndarray | None]:
    with np.load(SMALL) as archive:
        logits, gradient = archive["seg2/logits"].copy(), archive["grad/embed/embedding"].copy()
        keys = archive["seg0/state/transformer1/previous_keys"].copy()
        loss = archive["seg1/loss"]
    logits[1, 2, 3] += 3e-5
    gradient.flat[np.abs(gradient).argmax()] *= 1.001
    keys[0, 0, 0, 0] = np.nan
    return {
        "logits": {"seg2/logits": logits},
        "gradients": {"grad/embed/embedding": gradient},
        "caches": {"seg0/state/transformer1/previous_keys": keys},
        "loss": {"seg1/loss": loss * (1 + 5e-6)},
        "shape": {"seg2/logits": logits[:, 1:]},
        "missing": {"grad/final_layernorm/scale": None},
        "left over": {"grad/transformer9/scale": np.ones(3)},
        "state of an ordinary layer": {"seg2/state/transformer0/recurrent_state": np.ones((2, 3, 4))},
        "missing parameter": {"param/final_layernorm/scale": None},
    }[kind]


@pytest.mark.parametrize(
    ("kind", "counted_as"),
    [
        ("logits", "logits"),
        ("gradients", "gradients"),
        ("caches", "caches"),
        ("loss", "loss"),
        ("shape", "logits"),
        ("missing", "gradients"),
        ("left over", "gradients"),
        ("state of an ordinary layer", "states"),
    ],
)
def test_a_spoiled_entry_exceeds_the_limit_of_its_kind(tmp_path, kind, counted_as):
    parity = check_fixture(changed(tmp_path, **spoil(kind)))
    assert not parity.passed
    over = [name for name in LIMITS if not parity.errors[name] <= LIMITS[name]]
    assert over == [counted_as]


@pytest.mark.parametrize("entry", ["state/transformer0/memory_values", "retrieved/transformer0/scores"])
def test_a_spoiled_memory_exceeds_its_limit(tmp_path, entry):
    with np.load(WITH_MEMORY) as archive:
        spoiled = archive[f"seg3/{entry}"].copy()
    spoiled.flat[np.abs(spoiled).argmin()] += 3e-5
    parity = check_fixture(changed_copy(tmp_path, WITH_MEMORY, {f"seg3/{entry}": spoiled}))
    assert [name for name in LIMITS if not parity.errors[name] <= LIMITS[name]] == ["memory"]
    assert parity.places["memory"] == f"seg3/{entry}"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["block_recurrent", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_the_command_reports_each_file_and_fails_if_one_is_over(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "check-parity", str(SMALL)) == 0
    assert "xl.npz: logits" in capsys.readouterr().out
    spoiled = changed(tmp_path, **spoil("missing"))
    assert run(monkeypatch, "check-parity", str(SMALL), str(spoiled)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("ok")
    assert lines[2].endswith("OVER: gradients at grad/final_layernorm/scale")
    unusable = changed(tmp_path, **spoil("missing parameter"))
    assert run(monkeypatch, "check-parity", str(unusable)) == 1
    assert "param" in capsys.readouterr().out
    assert run(monkeypatch, "check-parity", os.devnull + "/nothing.npz") == 2


def test_leaves_keep_their_official_shapes():
    with np.load(FIXTURES / "lstm_dual_states_ne_window.npz") as archive:
        config = model_config(json.loads(str(archive["config.json"])))
        flat = {name: archive[name] for name in archive.files if name.startswith("param/")}
    params = convert_params(flat, config)
    tokens = params["layers"]["layer_01"]["tokens"]
    kernel = flat["param/transformer1/tbase/post_attn_mlp/output_layer/kernel"]
    np.testing.assert_array_equal(tokens["output"]["kernel"], kernel)
    states = params["layers"]["layer_01"]["states"]
    assert states["initial_state"].shape == (12, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"param/embed/embedding": None}, "embed/embedding is missing"),
        ({"param/embed/embedding": np.ones((3, 3))}, r"embed/embedding has shape \(3, 3\); .* \(48, 32\)"),
        ({"param/transformer7/scale": np.ones(3)}, "no place for transformer7/scale"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(change, message):
    with np.load(SMALL) as archive:
        config = model_config(json.loads(str(archive["config.json"])))
        flat = {name: archive[name] for name in archive.files if name.startswith("param/")} | change
    with pytest.raises(InputError, match=message):
        convert_params({name: entry for name, entry in flat.items() if entry is not None}, config)


def test_unsupported_options_of_the_official_code_are_refused():
    with np.load(SMALL) as archive:
        fields = json.loads(str(archive["config.json"]))
    assert model_config(fields | {"use_xl_cache": False}).window_length is None
    with pytest.raises(InputError, match="relative_position_type = 'rotary': only 't5'"):
        model_config(fields | {"relative_position_type": "rotary"})
    with pytest.raises(InputError, match=r"ModelConfig.gate = 'highway': must be one of 'fixed', 'lstm'"):
        model_config(fields | {"gate_type": "highway"})
    with np.load(WITH_MEMORY) as archive:
        memory = json.loads(str(archive["config.json"]))
    for name, value, message in (
        ("memory_combine_with_local", "ADD", "only 'TRAINABLE_WEIGHTED_MEAN'"),
        ("memory_cross_batch", True, "only False"),
        ("memory_reset_on_new_doc", False, "only True"),
        ("memory_num_heads", 5, f"only {memory['num_heads']}"),
        ("disable_position_encoding_for_memory_layers", False, "only True"),
    ):
        with pytest.raises(InputError, match=f"official configuration: {name} = {value!r}: {message}"):
            model_config(memory | {name: value})
    del fields["mlp_dim"]
    with pytest.raises(InputError, match="field 'mlp_dim' is missing"):
        model_config(fields)
