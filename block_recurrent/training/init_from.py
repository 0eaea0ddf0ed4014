"""Initial parameters of a new run, read from another run, an export, or the official code."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from block_recurrent.config import ModelConfig, fields_that_may_differ
from block_recurrent.errors import InputError, first_line
from block_recurrent.interop.meliad import convert_params, model_config
from block_recurrent.interop.safetensors import CONFIG_FILE, load_export
from block_recurrent.training.saved_run import SavedRun
from block_recurrent.trees import named_leaves
from block_recurrent.typing import Params

_REASONS = {
    "window_length": "relative positions and states are learned for one block length",
    "num_states": "every state vector has parameters of its own",
    "vocab_size": "every token id has its row of the embedding table",
}


def load_initial_params(source: epath.Path, config: ModelConfig, *, vocabulary: str) -> Params:
    """Reads parameters for a new run.

    Args:
        source: a workdir or one of its `checkpoints/STEP`; a folder written by `export`; an `.npz` with the official
            code's parameters (`param/...`); or a checkpoint of the official code (`checkpoint_STEP`).
        config: the configuration of the new run's model.
        vocabulary: fingerprint of the vocabulary of the new run's data.

    Raises:
        InputError: `source` does not exist, cannot be read, or belongs to another model or vocabulary.
    """
    if not source.exists():
        raise InputError(f"--init-from {source}: no such file or folder")
    if source.suffix == ".npz":
        return _from_npz(source, config)
    if (source / CONFIG_FILE).exists():
        exported = load_export(source)
        _check(source, exported.model, config)
        _check_vocabulary(source, exported.vocabulary["fingerprint"], vocabulary)
        return exported.params
    if source.name.startswith("checkpoint_"):
        return _from_official_checkpoint(source, config)
    saved = SavedRun.load(source)
    _check(source, saved.config.model, config)
    _check_vocabulary(source, saved.vocabulary_fingerprint, vocabulary)
    return saved.params


def _check(source: epath.Path, theirs: ModelConfig, ours: ModelConfig) -> None:
    differences, free = [], fields_that_may_differ("init_from")
    for field in dataclasses.fields(ModelConfig):
        there, here = getattr(theirs, field.name), getattr(ours, field.name)
        if field.name == "recurrent_layers":
            there, here = sorted(theirs.recurrent_indices), sorted(ours.recurrent_indices)
        if field.name == "memory_layers":
            there, here = sorted(theirs.memory_indices), sorted(ours.memory_indices)
        if field.name not in free and there != here:
            reason = _REASONS.get(field.name)
            differences.append(f"{field.name} = {there!r} there, {here!r} here" + (f" ({reason})" if reason else ""))
    if differences:
        raise InputError(f"--init-from {source}: parameters of another model: {'; '.join(differences)}")


def _check_vocabulary(source: epath.Path, theirs: str, ours: str) -> None:
    if theirs != ours:
        raise InputError(
            f"--init-from {source}: trained with the vocabulary of fingerprint {theirs}; the data of this run has "
            f"{ours}: the same token ids mean other texts"
        )


def _from_npz(source: epath.Path, config: ModelConfig) -> Params:
    try:
        with source.open("rb") as file:
            arrays = dict(np.load(file, allow_pickle=False))
    except ValueError as error:
        raise InputError(f"--init-from {source}: not an .npz of arrays: {error}") from None
    if "config.json" in arrays:
        _check(source, model_config(json.loads(str(arrays["config.json"]))), config)
    params = {name: array for name, array in arrays.items() if name.startswith("param/")}
    return _convert(source, params, config)


def _from_official_checkpoint(source: epath.Path, config: ModelConfig) -> Params:
    """Reads `checkpoint_STEP/tstate` of the official trainer; its entry `target` is the tree of parameters."""
    folder = source / "tstate" if (source / "tstate").exists() else source
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            target: Any = checkpointer.restore(folder)["target"]
    except Exception as error:  # orbax raises many classes for a folder of another kind
        raise InputError(f"--init-from {source}: not a checkpoint of the official code: {first_line(error)}") from None
    return _convert(source, named_leaves(target), config)


def _convert(source: epath.Path, flat: Mapping[str, np.ndarray], config: ModelConfig) -> Params:
    try:
        return convert_params(flat, config)
    except InputError as error:
        raise InputError(f"--init-from {source}: {error}") from None
