"""Prefill of prompts of any length, in calls of one shape."""

from collections.abc import Callable

import numpy as np

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.generation.decode_state import DecodeState, blocks_end
from block_recurrent.parallel.placement import to_host
from block_recurrent.progress import ProgressCallback


def prefill_prompts(
    config: ModelConfig,
    prefill: Callable[[DecodeState, np.ndarray, np.ndarray], DecodeState],
    prompts: list[np.ndarray],
    state: DecodeState,
    *,
    segment_length: int,
    progress: ProgressCallback,
) -> DecodeState:
    """Processes a prompt in each row and returns the state after them.

    Args:
        config: the model.
        prefill: `prefill.prefill` of this model, compiled: state, tokens (B, T) and counts (B,) to the next state.
        prompts: ids; an empty prompt does not change its row.
        state: the state before the prompts, one row for each.
        segment_length: tokens of a row in one call, a multiple of the window. With an external memory, the segment
            length of `state`.
        progress: called with (tokens done, tokens in total) of the longest prompt.

    Raises:
        InputError: a model that takes one segment gets more tokens than that.
    """
    done, lengths = np.zeros(len(prompts), int), np.array([len(prompt) for prompt in prompts])
    check_length(config, segment_length, to_host(state.filled), lengths, 0)
    offset, size = _offset(state), segment_length
    while (done < lengths).any():
        # Whole segments first, which run as in training; then the rest of all rows, block by block.
        whole = (offset == 0) & (lengths - done >= size)
        counts = whole * size if whole.any() else np.minimum(lengths - done, size - offset)
        tokens = np.zeros((len(prompts), size), np.int32)
        for row, count in enumerate(counts):
            tokens[row, :count] = prompts[row][done[row] : done[row] + count]
        state = prefill(state, tokens, counts.astype(np.int32))
        done += counts
        offset = (offset + counts) % _period(config, size)
        progress(int(done.max()), int(lengths.max()))
    return state


def check_length(
    config: ModelConfig, segment_length: int, filled: np.ndarray, lengths: np.ndarray, num_tokens: int
) -> None:
    """Checks that prompts and continuations fit a model without a window and without an external memory.

    Args:
        config: the model.
        segment_length: the segment length of training.
        filled: earlier tokens of each row.
        lengths: length of each row's prompt.
        num_tokens: number of tokens of the continuations.

    Raises:
        InputError: a row has more tokens than the segment length.
    """
    if blocks_end(config):
        return
    for row in range(len(lengths)):
        before = f"{filled[row]} earlier tokens, " if filled[row] else ""
        if filled[row] + lengths[row] + num_tokens > segment_length:
            raise InputError(
                f"{before}a prompt of {lengths[row]} and {num_tokens} new tokens: a model without a window takes "
                f"at most its segment length, {segment_length}"
            )


def _offset(state: DecodeState) -> np.ndarray:
    """Returns each row's position in its block, or with an external memory in its segment."""
    earlier = 0 if state.segment is None else to_host(state.segment.filled)
    return earlier + to_host(state.filled)


def _period(config: ModelConfig, size: int) -> int:
    """Returns the number of tokens after which `_offset` is 0 again."""
    if config.memory_layers and not config.feedback:
        return size
    return config.window_length or size + 1
