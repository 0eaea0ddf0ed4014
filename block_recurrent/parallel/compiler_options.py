"""Compiler options for `jax.jit`."""


def compiler_options(platform: str) -> dict[str, bool]:
    """Returns the compiler options for a platform, by jax's name of it.

    On TPU, equal parts of a program, such as the layers of a stack, become calls of one piece of code. In the 150M
    models that is a third less code, both in HBM and for the compiler.
    """
    return {"xla_tpu_enable_deduplicated_calls": True} if platform == "tpu" else {}
