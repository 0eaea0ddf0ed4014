"""Exports: parameters as safetensors, a JSON file of configuration and training, and the vocabulary's file."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from etils import epath
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from block_recurrent.config import ModelConfig
from block_recurrent.config.stored import read_model_config
from block_recurrent.errors import InputError
from block_recurrent.files import write_whole
from block_recurrent.model.language_model import abstract_params
from block_recurrent.registry import modules_of
from block_recurrent.trees import from_named_leaves, named_leaves
from block_recurrent.typing import Params

PARAMS_FILE, CONFIG_FILE, VOCABULARY_FILE = "params.safetensors", "config.json", "vocabulary.model"
_FORMAT = "block_recurrent export 2"
_FORMATS = ("block_recurrent export 1", _FORMAT)  # 1 is that of 0.1.0, without `training`


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export that was read.

    Attributes:
        model: the model configuration.
        params: nested dictionaries of float32 numpy arrays.
        step: number of training steps taken.
        vocabulary: `spec` and `fingerprint` of the vocabulary.
        training: facts of the training, as `SavedRun.training` returns them; empty for an export of 0.1.0.
    """

    model: ModelConfig
    params: dict[str, Any]
    step: int
    vocabulary: dict[str, Any]
    training: dict[str, Any]


def export_params(
    folder: epath.Path,
    *,
    config: ModelConfig,
    params: Params,
    step: int,
    vocabulary: Mapping[str, Any],
    vocabulary_file: bytes | None = None,
    trained_on: Sequence[str],
    training: Mapping[str, Any],
) -> None:
    """Writes `params.safetensors` and `config.json`.

    Args:
        folder: created if it does not exist.
        config: the model configuration.
        params: the parameters.
        step: number of training steps taken.
        vocabulary: `spec` and `fingerprint` of the vocabulary.
        vocabulary_file: contents of the vocabulary's file, written as `vocabulary.model`, which is then the recorded
            `spec`; None for no file.
        trained_on: fingerprints of the training stores.
        training: facts of the training; `segment_length` and `batch_size` are read again by `generate` and `evaluate`.

    Raises:
        InputError: the folder already holds an export.
    """
    for name in (PARAMS_FILE, CONFIG_FILE, *([] if vocabulary_file is None else [VOCABULARY_FILE])):
        if (folder / name).exists():
            raise InputError(f"--out {folder}: {name} is there already; choose another folder")
    record = {
        "format": _FORMAT,
        "model": dataclasses.asdict(config),
        "step": step,
        "vocabulary": dict(vocabulary) | ({} if vocabulary_file is None else {"spec": VOCABULARY_FILE}),
        "trained_on": list(trained_on),
        "training": dict(training),
        "versions": {name: metadata.version(name) for name in ("block-recurrent", "jax")},
    }
    if modules := modules_of(config):
        record["modules"] = modules
    folder.mkdir(parents=True, exist_ok=True)
    if vocabulary_file is not None:
        write_whole(folder / VOCABULARY_FILE, vocabulary_file)
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in named_leaves(params).items()}
    write_whole(folder / PARAMS_FILE, save_tensors(tensors, metadata={"format": _FORMAT}))
    write_whole(folder / CONFIG_FILE, json.dumps(record, indent=2) + "\n")  # last: it marks the export as complete


def load_export(folder: epath.Path) -> Exported:
    """Reads an export written by `export_params`.

    Raises:
        InputError: the folder holds no export, or the export is damaged or of a later version.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
        if config["format"] not in _FORMATS:
            raise InputError(f"{folder}: format {config['format']!r}; this version reads: {', '.join(_FORMATS)}")
        model = read_model_config(config["model"], folder / CONFIG_FILE, config.get("modules"))
        flat = load_tensors((folder / PARAMS_FILE).read_bytes())
        like = abstract_params(model)
        _check_shapes(flat, like)
        params = from_named_leaves(flat, like)
        return Exported(model, params, config["step"], config["vocabulary"], config.get("training", {}))
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no export is there ({error.filename or error} is missing)") from None
    except Exception as error:  # safetensors, JSON and msgspec raise different classes
        raise InputError(f"{folder}: not an export that can be read: {error}") from None


def _check_shapes(flat: dict[str, np.ndarray], like: Params) -> None:
    for name, leaf in named_leaves(like).items():
        if name not in flat or flat[name].shape != leaf.shape:
            raise ValueError(f"{name}: {'missing' if name not in flat else flat[name].shape}, expected {leaf.shape}")
