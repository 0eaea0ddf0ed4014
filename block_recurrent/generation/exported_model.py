"""An exported model, loaded for generation: configuration, parameters, vocabulary and segment length."""

import dataclasses
import os

from block_recurrent.config import ModelConfig
from block_recurrent.data.recorded_vocabulary import load_recorded_vocabulary
from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.errors import InputError
from block_recurrent.interop.model_folder import model_folder
from block_recurrent.interop.safetensors import Exported, load_export
from block_recurrent.typing import Params

_SEGMENT_TOKENS = 512  # of exports that do not record the segment length; at least one window


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """A model of an export.

    Attributes:
        config: the model configuration.
        params: the parameters, numpy arrays.
        vocabulary: the vocabulary of training.
        segment_length: tokens in one call of prefill: the segment length of training, unless another one was given.
    """

    config: ModelConfig
    params: Params
    vocabulary: Vocabulary
    segment_length: int


def load_exported_model(
    name_or_folder: os.PathLike[str] | str, vocabulary: str | None = None, segment_length: int | None = None
) -> ExportedModel:
    """Loads an exported model.

    Args:
        name_or_folder: name of a packaged model, or a folder that `export` wrote; see `interop.model_folder`.
        vocabulary: file of the vocabulary, checked by its fingerprint; None takes the copy in the folder.
        segment_length: None is that of training.

    Raises:
        InputError: there is no such model, it cannot be read, or its vocabulary or segment length is not found.
    """
    folder = model_folder(name_or_folder)
    exported = load_export(folder)
    length = segment_length or _segment_length(folder, exported)
    spec, fingerprint = exported.vocabulary["spec"], exported.vocabulary["fingerprint"]
    own = load_recorded_vocabulary(spec, fingerprint, given=vocabulary, folders=(folder,))
    return ExportedModel(exported.model, exported.params, own, length)


def _segment_length(folder: os.PathLike[str], exported: Exported) -> int:
    """Returns the recorded segment length, or for an older export with a window any multiple of the window."""
    if "segment_length" in exported.training:
        return exported.training["segment_length"]
    window = exported.model.window_length
    if exported.model.memory_layers:
        raise InputError(
            f"{folder}: does not record the segment length of training, which a model with an external memory needs: "
            "the memory is written segment by segment; pass --segment-length"
        )
    if window is None:
        raise InputError(
            f"{folder}: does not record the segment length of training (an export of 0.1.0), which a model without a "
            "window needs; export the run again"
        )
    return max(1, _SEGMENT_TOKENS // window) * window
