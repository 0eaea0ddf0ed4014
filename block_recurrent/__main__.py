"""Runs the command line: `python -m block_recurrent`."""

import faulthandler
import os
import sys

_COMPUTING = {"train", "evaluate", "compare", "generate", "score"}


def _restart_with_huge_pages() -> None:
    """Restarts the program so that glibc asks for huge pages for large arrays; it reads the setting only at start.

    XLA allocates memory for the intermediate results of every step. The operating system provides pages of 2 MB faster
    than pages of 4 kB: docs/performance.md has the figures. A setting of the user's own stays.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, sys.orig_argv)


def run() -> None:
    """Runs the command line, after the settings that a computing program needs before it starts."""
    if sys.stderr is not None:
        faulthandler.enable()  # a library that crashes leaves the lines of Python that called it
    # All numbers are defined in 32 bits; with the variable, parameters, checkpoints and speed would differ.
    os.environ.pop("JAX_ENABLE_X64", None)
    if len(sys.argv) > 1 and sys.argv[1] in _COMPUTING:
        # For every program of the compilation cache, XLA reports preferences of its compiler as missing CPU features.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        _restart_with_huge_pages()
    from block_recurrent.cli import interruption

    interruption.run(_main)


def _main() -> None:
    from block_recurrent.cli.main import main  # takes a second, in which the user may already interrupt

    main()


if __name__ == "__main__":
    run()
