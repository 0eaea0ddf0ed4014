"""Errors of programs with fused kernels."""

import dataclasses
from typing import Any

import pytest

from block_recurrent.errors import InputError
from block_recurrent.parallel.kernels import compile_with_kernels
from tests.support.architectures import CACHED

TOO_LARGE = "Ran out of memory in memory space vmem. Used 17.64M of 16.00M vmem.\nProgram vmem requirement 17.64M:"


class Refused:
    def __init__(self, message: str):
        self.message = message

    def compile(self) -> Any:
        raise RuntimeError(self.message)


def test_a_kernel_that_the_compiler_refuses_is_an_error_that_names_the_field():
    plain: Any = CACHED["slide"]
    fused = dataclasses.replace(plain, attention_kernel="fused")
    with pytest.raises(InputError, match=r"attention_kernel = 'fused': .* Used 17.64M of 16.00M vmem\.; .* 'xla' runs"):
        compile_with_kernels(fused, Refused(TOO_LARGE))
    for config, message in ((plain, TOO_LARGE), (fused, "Used 20.00G of 15.75G hbm.")):
        with pytest.raises(RuntimeError, match="Used"):
            compile_with_kernels(config, Refused(message))
