"""Half-lives of the gates: the time after which half of what a channel of the recurrent states holds is left.

Once per block a gate multiplies a channel by its forget gate g, so after k blocks g^k of the content is left, and half
of it after W ln(1/2) / ln(g) tokens.
"""

import math
from collections.abc import Mapping

import numpy as np

from block_recurrent.config import ModelConfig
from block_recurrent.model.language_model import layer_name
from block_recurrent.registry import GATES
from block_recurrent.typing import Params

_PERCENTILES = (10, 50, 90, 99)
_SLOWEST = -1e-300  # keeps the half-life of a gate that rounds to 1 finite


def half_life_tokens(log_forget: np.ndarray, window_length: int) -> np.ndarray:
    """Returns half-lives in tokens.

    Args:
        log_forget: (D,), ln of the forget gate, or its mean over blocks for a gate that changes; below 0.
        window_length: W, tokens of a block.
    """
    return window_length * math.log(0.5) / np.minimum(log_forget, _SLOWEST)


def constant_half_lives(config: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    """Returns the half-lives of gates that depend on parameters alone, such as the fixed gate; nothing is compiled.

    In the `dual` cell both gates act in every block: the content decays with the product of the two.

    Args:
        config: the model.
        params: its parameters.

    Returns:
        (D,) float64 in tokens, or (1,) for a gate that all channels share, by `LAYER/PLACE`, such as
        `layer_01/attention`. Empty for a model without recurrent layers, and for gates that depend on the tokens, such
        as the lstm gate.
    """
    if config.window_length is None:
        return {}
    found, gate = {}, GATES.get(config.gate)
    for index in sorted(config.recurrent_indices):
        name = layer_name(index)
        for place, weights in params["layers"][name]["states"]["cell"].items():
            log_forget = gate.log_forget(weights["gate"]) if "gate" in weights else None
            if log_forget is not None:
                found[f"{name}/{place}"] = half_life_tokens(np.atleast_1d(log_forget), config.window_length)
    return found


def half_life_metrics(half_lives: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns percentiles over the channels, for a line of `metrics.jsonl`.

    Args:
        half_lives: (D,) in tokens, by `LAYER/PLACE`.

    Returns:
        `half_life_tokens/LAYER/PLACE/pNN`, for the percentiles 10, 50, 90 and 99. Few channels with a long half-life
        are enough to carry a state far, so look at the highest first.
    """
    return {
        f"half_life_tokens/{place}/p{percent}": float(np.percentile(channels, percent))
        for place, channels in half_lives.items()
        for percent in _PERCENTILES
    }
