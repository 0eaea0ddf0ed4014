"""Runs the command line: `python -m block_recurrent`."""

import faulthandler
import os
import sys

_COMPUTING = {"train", "evaluate", "compare", "generate", "score"}
# Settings of glibc's memory, which it reads only at start. docs/performance.md has the figures.
_TUNABLES = {
    # The operating system provides pages of 2 MB faster than pages of 4 kB, and XLA allocates memory in every step.
    **dict.fromkeys(_COMPUTING, "glibc.malloc.hugetlb=1"),
    # One pool of memory for all threads of the compiler wastes less.
    "compile": "glibc.malloc.arena_max=1",
}


def _restart_with_tunables(command: str) -> None:
    """Restarts the program with the settings of a command; settings of the user's own stay."""
    if sys.platform == "linux" and command in _TUNABLES and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = _TUNABLES[command]
        os.execv(sys.executable, sys.orig_argv)


def run() -> None:
    """Runs the command line, after the settings that a computing program needs before it starts."""
    if sys.stderr is not None:
        faulthandler.enable()  # a library that crashes leaves the lines of Python that called it
    # All numbers are defined in 32 bits; with the variable, parameters, checkpoints and speed would differ.
    os.environ.pop("JAX_ENABLE_X64", None)
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in _COMPUTING:
        # For every program of the compilation cache, XLA reports preferences of its compiler as missing CPU features.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _restart_with_tunables(command)
    from block_recurrent.cli import interruption

    interruption.run(_main)


def _main() -> None:
    from block_recurrent.cli.main import main  # takes a second, in which the user may already interrupt

    main()


if __name__ == "__main__":
    run()
