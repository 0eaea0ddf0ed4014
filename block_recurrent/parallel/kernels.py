"""Programs with fused kernels: divided over the devices of a mesh, and compiled with a clear error."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError, first_line

_KERNEL_WORDS = ("vmem", "mosaic")  # in messages about a kernel, and in no other message of libtpu


def with_kernels(mesh: Mesh, config: ModelConfig, function: Callable[..., Any]) -> Callable[..., Any]:
    """Prepares a function of the model for `jax.jit` on a mesh: its fused kernels run on each device's rows and heads.

    XLA divides ordinary operations by the shardings of their arrays, but not kernels. Without the fused kernel the
    function itself is returned.

    Raises:
        InputError: the kernel cannot be compiled for these devices.
    """
    config.check_platform(mesh.devices.flat[0].platform)
    if config.attention_kernel == "xla":
        return function

    @functools.wraps(function)
    def on_mesh(*arguments: Any, **named: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments, **named)

    return on_mesh


def compile_with_kernels(config: ModelConfig, lowered: Any) -> Any:
    """Compiles a program of the model.

    Raises:
        InputError: the compiler refuses the fused kernel, for instance because its tiles do not fit a chip's VMEM.
    """
    try:
        return lowered.compile()
    except Exception as error:  # jaxlib's own error class
        if config.attention_kernel == "xla" or not any(word in str(error).lower() for word in _KERNEL_WORDS):
            raise
        raise InputError(
            "ModelConfig.attention_kernel = 'fused': the compiler refuses the kernel for these devices: "
            f"{first_line(error)}; attention_kernel = 'xla' runs on all, and bfloat16 needs half the VMEM of float32"
        ) from error
