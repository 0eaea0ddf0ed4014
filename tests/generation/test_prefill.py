"""Prefill in pieces of any length."""

from typing import Any

import numpy as np
import pytest

from block_recurrent.generation import decode_state
from tests.support.architectures import CACHED, WINDOW, perturbed_params, random_tokens
from tests.support.decoding import SEGMENT, TOTAL, jit_prefill, teacher_forced_logits


@pytest.mark.slow
def test_prefill_may_stop_and_continue_anywhere_with_one_compilation():
    config, params = CACHED["fixed_skip"], perturbed_params(CACHED["fixed_skip"])
    tokens = np.asarray(random_tokens(config, 2, TOTAL))
    expected = teacher_forced_logits(config, params, tokens)
    compiled: Any = jit_prefill  # its cache holds the programs of all tests
    state, done = decode_state.init(config, params, 2, segment_length=SEGMENT), np.zeros(2, int)
    programs = 0
    for counts in ([3, SEGMENT], [WINDOW, 0], [5, 1], [0, 2], [SEGMENT, WINDOW]):
        piece = np.zeros((2, SEGMENT), np.int32)
        for row, count in enumerate(counts):
            piece[row, :count] = tokens[row, done[row] : done[row] + count]
        state = jit_prefill(config, params, state, piece, np.array(counts, np.int32))
        done += counts
        programs = programs or compiled._cache_size()
        np.testing.assert_allclose(state.logits, expected[[0, 1], done - 1], rtol=0, atol=2e-5)
    assert compiled._cache_size() == programs
