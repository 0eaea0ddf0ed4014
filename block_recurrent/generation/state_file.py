"""A decoding state in one safetensors file: process a long text once and continue it any number of times.

The file's header identifies the model and the vocabulary of the state; no other model can load it.
"""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from block_recurrent.config import ModelConfig, fields_that_may_differ
from block_recurrent.errors import InputError, first_line
from block_recurrent.files import write_whole
from block_recurrent.generation.decode_state import DecodeState
from block_recurrent.parallel.placement import to_host
from block_recurrent.parallel.processes import is_primary
from block_recurrent.registry import check_modules, modules_of
from block_recurrent.training.checksum import checksums
from block_recurrent.trees import from_named_leaves, named_leaves
from block_recurrent.typing import Params

_FORMAT = "block_recurrent decoding state, version 2"
_FORMAT_1 = "block_recurrent decoding state, version 1"  # 0.1.0: leaves `memory/...` for `model_state/...`
_SPARE_BYTES = 1 << 20  # for the header, and so that the disk is not filled to the last byte


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Identifies the model that a state belongs to.

    Attributes:
        config: the fields of `ModelConfig` that decide the model's results.
        parameters: hex sha256 of the parameters' checksums.
        vocabulary: the vocabulary's fingerprint.
        modules: modules from outside the package that define the cell or the gate; see `registry.modules_of`.
    """

    config: Mapping[str, Any]
    parameters: str
    vocabulary: str
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, config: ModelConfig, params: Params, vocabulary_fingerprint: str) -> "ModelIdentity":
        """Computes the identity of a model."""
        free = fields_that_may_differ("saved_state")
        sums = json.dumps(checksums(params), sort_keys=True)
        return cls(
            config=_as_json({name: value for name, value in dataclasses.asdict(config).items() if name not in free}),
            parameters=hashlib.sha256(sums.encode()).hexdigest(),
            vocabulary=vocabulary_fingerprint,
            modules=modules_of(config),
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields for the header; without `modules` if there are none, so that older versions read it."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "modules" or value}


def check_room(path: Path, state: Any) -> None:
    """Checks, before long work begins, that a state (concrete or abstract) can be written to a file.

    Raises:
        InputError: the folder does not exist, is not writable, or has too little space.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    if not folder.is_dir():
        raise InputError(f"{path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: the folder {folder} is not writable")
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"{path}: the state takes {needed:,} bytes, but only {free:,} bytes are free there")


def save_state(path: Path, state: DecodeState, identity: ModelIdentity) -> None:
    """Writes a state; the file appears whole or not at all. With several processes the first one writes it.

    Raises:
        InputError: the file cannot be written.
    """
    arrays = {name: to_host(leaf) for name, leaf in named_leaves(state).items()}
    if not is_primary():
        return
    header = {"format": _FORMAT, "model": json.dumps(identity.as_dict(), sort_keys=True)}
    try:
        write_whole(path, save(arrays, header))
    except OSError as error:
        full = " (the disk is full; nothing was changed)" if error.errno == errno.ENOSPC else ""
        raise InputError(f"{path}: the state cannot be written: {error.strerror}{full}") from None


def load_state(path: Path, like: DecodeState, identity: ModelIdentity) -> DecodeState:
    """Reads a state.

    Args:
        path: the file.
        like: a state of this model with any number of rows, concrete or abstract.
        identity: the identity of this model.

    Raises:
        InputError: the file cannot be read, is damaged, or belongs to another model; the message names the differences.
    """
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            _check_identity(path, header, identity)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dictionary
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as a decoding state: {first_line(error)}") from None
    if header["format"] == _FORMAT_1:
        arrays = {_leaf_name_of_version_1(name): array for name, array in arrays.items()}
    _check_segment_length(path, arrays, named_leaves(like))
    _check_arrays(path, arrays, named_leaves(like))
    return jax.tree.map(jax.numpy.asarray, from_named_leaves(arrays, like))


def _leaf_name_of_version_1(name: str) -> str:
    return f"model_state/{name.removeprefix('memory/')}" if name.startswith("memory/") else name


def _check_arrays(path: Path, arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> None:
    rows = {len(array) if array.ndim else 0 for array in arrays.values()}
    for name in sorted(expected.keys() | arrays.keys()):
        known = name in arrays and name in expected and arrays[name].shape[1:] == expected[name].shape[1:]
        if not known or len(rows) != 1 or arrays[name].dtype != expected[name].dtype:
            raise InputError(f"{path}: not a state of this model: array {name} differs")


def _check_segment_length(path: Path, arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> None:
    """Compares the segment lengths of two states of a model with an external memory."""
    name = "segment/layers/0/keys"
    if name in arrays and name in expected and arrays[name].ndim == expected[name].ndim:
        window = expected["tokens"].shape[1]
        theirs, ours = (window + leaves[name].shape[1] for leaves in (arrays, expected))
        if theirs != ours:
            raise InputError(
                f"{path}: a state with segments of {theirs} tokens, but the segment length is {ours} here; the "
                f"external memory is written segment by segment: pass --segment-length {theirs}"
            )


def _check_identity(path: Path, header: Mapping[str, str], identity: ModelIdentity) -> None:
    if header.get("format") not in (_FORMAT, _FORMAT_1):
        raise InputError(f"{path}: not a decoding state ({_FORMAT}); its format is {header.get('format')!r}")
    try:
        saved = ModelIdentity(**json.loads(header["model"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the header cannot be read: {error}") from None
    check_modules(saved.config, saved.modules, path)
    saved_config = _defaults() | dict(saved.config)  # a field that is younger than the file has its default
    names = sorted(saved.config.keys() | identity.config.keys())
    pairs = [(f"ModelConfig.{name}", saved_config.get(name), identity.config.get(name)) for name in names]
    pairs += [("vocabulary", saved.vocabulary, identity.vocabulary)]
    pairs += [("parameters", saved.parameters, identity.parameters)]
    different = [f"{name}: {theirs} in the file, {ours} here" for name, theirs, ours in pairs if theirs != ours]
    if different:
        raise InputError(f"{path}: the state of another model ({'; '.join(different)})")


def _defaults() -> dict[str, Any]:
    fields = dataclasses.fields(ModelConfig)
    return _as_json({field.name: field.default for field in fields if field.default is not dataclasses.MISSING})


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    """Returns values as JSON reads them back: lists for tuples."""
    return json.loads(json.dumps(values))
