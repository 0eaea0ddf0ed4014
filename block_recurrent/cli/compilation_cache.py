"""The persistent compilation cache: a command that has run before starts without compiling."""

import hashlib
import os
import platform
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from block_recurrent.cli.options import CONSOLE
from block_recurrent.errors import first_line

_MAX_BYTES = 2 * 2**30  # the least recently used programs are deleted first
_MIN_SECONDS = 0.1  # programs that compile faster are not kept

CompilationCache = Annotated[
    bool,
    typer.Option(
        "--compilation-cache/--no-compilation-cache",
        help="Keep compiled programs in ~/.cache/block_recurrent, at most 2 GiB, for the next start.",
    ),
]


def use_compilation_cache(enabled: bool) -> None:
    """Sets JAX's compilation cache up. A cache of the user's own (`JAX_COMPILATION_CACHE_DIR`) is left as it is."""
    import jax

    if not enabled:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if jax.config.values["jax_compilation_cache_dir"] or not jax.config.values["jax_enable_compilation_cache"]:
        return
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        CONSOLE.print(f"warning: no compilation cache: {folder}: {first_line(error)}", style="yellow", markup=False)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)


def cache_folder() -> Path:
    """Returns the folder of the compiled programs, by JAX's version and the CPU."""
    import jax

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "block_recurrent" / f"jax-{jax.__version__}-{_cpu()}"


def _cpu() -> str:
    """Returns a name for the CPU and its instructions: a program compiled for others may not run here."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
