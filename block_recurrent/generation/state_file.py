"""A decoding state in one safetensors file: read a book once, go on from there as often as you like.

The file's header says which model and vocabulary the state belongs to; nothing else can load it.
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
from block_recurrent.errors import InputError
from block_recurrent.generation.decode import DecodeState
from block_recurrent.training.checksum import checksums
from block_recurrent.trees import from_named_leaves, named_leaves
from block_recurrent.typing import Params

_FORMAT = "block_recurrent decoding state, version 1"
_ROOM = 1 << 20  # for the header, and so that a disk is not filled to the last byte


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model a state belongs to.

    Attributes:
        config: the fields of `ModelConfig` that decide what it computes.
        parameters: hex sha256 of the parameters' checksums.
        vocabulary: the vocabulary's fingerprint.
    """

    config: Mapping[str, Any]
    parameters: str
    vocabulary: str

    @classmethod
    def of(cls, config: ModelConfig, params: Params, vocabulary_fingerprint: str) -> "ModelIdentity":
        """Computed from the model itself."""
        free = fields_that_may_differ("saved_state")
        fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in free}
        sums = json.dumps(checksums(params), sort_keys=True)
        return cls(
            config=json.loads(json.dumps(fields)),  # as it will be read back
            parameters=hashlib.sha256(sums.encode()).hexdigest(),
            vocabulary=vocabulary_fingerprint,
        )


def check_room(path: Path, state: Any) -> None:
    """Checks, before long work begins, that a state (concrete or abstract) can be written there.

    Raises:
        InputError: the folder is missing, cannot be written to, or has too little space.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    if not folder.is_dir():
        raise InputError(f"{path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: the folder {folder} cannot be written to")
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) + _ROOM
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"{path}: the state takes {needed:,} bytes; {free:,} are free there")


def save_state(path: Path, state: DecodeState, identity: ModelIdentity) -> None:
    """Writes a state; the file appears whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in named_leaves(state).items()}
    header = {"format": _FORMAT, "model": json.dumps(dataclasses.asdict(identity), sort_keys=True)}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(save(arrays, header))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        full = " (the disk is full; nothing was changed)" if error.errno == errno.ENOSPC else ""
        raise InputError(f"{path}: the state cannot be written: {error.strerror}{full}") from None


def load_state(path: Path, like: DecodeState, identity: ModelIdentity) -> DecodeState:
    """Reads a state.

    Args:
        path: the file.
        like: a state of this model with any number of rows, concrete or abstract.
        identity: of this model.

    Raises:
        InputError: the file cannot be read, is damaged, or belongs to another model; what differs is named.
    """
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            _check_identity(path, header, identity)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dictionary
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as a decoding state: {error}") from None
    expected = named_leaves(like)
    rows = {len(array) if array.ndim else 0 for array in arrays.values()}
    for name in expected.keys() | arrays.keys():
        known = name in arrays and name in expected and arrays[name].shape[1:] == expected[name].shape[1:]
        if not known or len(rows) != 1 or arrays[name].dtype != expected[name].dtype:
            raise InputError(f"{path}: not a state of this model: array {name} differs")
    return jax.tree.map(jax.numpy.asarray, from_named_leaves(arrays, like))


def _check_identity(path: Path, header: Mapping[str, str], identity: ModelIdentity) -> None:
    if header.get("format") != _FORMAT:
        raise InputError(f"{path}: not a decoding state ({_FORMAT}); its format is {header.get('format')!r}")
    try:
        theirs = ModelIdentity(**json.loads(header["model"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the header cannot be read: {error}") from None
    names = theirs.config.keys() | identity.config.keys()
    pairs = [(f"ModelConfig.{name}", theirs.config.get(name), identity.config.get(name)) for name in sorted(names)]
    pairs += [("vocabulary", theirs.vocabulary, identity.vocabulary)]
    pairs += [("parameters", theirs.parameters, identity.parameters)]
    different = [f"{name}: {there} there, {here} here" for name, there, here in pairs if there != here]
    if different:
        raise InputError(f"{path}: the state of another model ({'; '.join(different)})")
