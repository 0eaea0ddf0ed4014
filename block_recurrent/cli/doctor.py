"""The command `doctor`: what this installation has, and the remedy for what is wrong."""

import dataclasses
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

import typer

from block_recurrent import jaxlib_guard
from block_recurrent.cli.compilation_cache import cache_folder
from block_recurrent.cli.options import CONSOLE
from block_recurrent.errors import first_line, install_command

PACKAGE = "block-recurrent"
CHECKOUT = Path(__file__).parents[2]  # of an editable installation; elsewhere the folder of installed packages
_EXTRAS = {
    "data": "seqio tasks and TFDS",
    "beam": "prepare with Apache Beam",
    "gcs": "gs:// paths",
    "tpu": "Cloud TPU, and `compile`",
    "cuda": "NVIDIA GPU",
    "dev": "tests",
}
_SHOWN = ("jax", "jaxlib", "flax", "numpy", "optax", "orbax-checkpoint", "tensorstore")
_LEAST_FREE_BYTES = 1 << 30
_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: the thing that was checked.
        value: what was found.
        verdict: `problem` if commands will fail or compute wrong numbers, `note` if only a part is missing.
        remedy: what to do; empty if nothing is wrong.
    """

    name: str
    value: str
    verdict: Literal["ok", "note", "problem"] = "ok"
    remedy: str = ""


def doctor() -> None:
    """Check this installation: versions, devices, threads, cache, write rights and extras, with the remedies.

    The exit code is 1 if there is a problem: a requirement that is missing or known to be wrong, no device, or a
    folder that cannot be written. Missing extras are notes.

    Example: python -m block_recurrent doctor
    """
    problems = 0
    for check in checks():
        problems += check.verdict == "problem"
        CONSOLE.print(f"{check.verdict:8}", style=_STYLES[check.verdict], end="", markup=False)
        remedy = f" -> {check.remedy}" if check.remedy else ""
        CONSOLE.print(f"{check.name}: {check.value}{remedy}", highlight=False, soft_wrap=True, markup=False)
    if problems:
        CONSOLE.print(f"{problems} problem(s)", highlight=False)
        raise typer.Exit(1)


def checks() -> Iterator[Check]:
    """Yields all checks; each catches the errors of what it checks."""
    yield Check("python", f"{platform.python_version()} ({sys.executable}), {platform.platform()}")
    yield from _versions()
    yield _devices()
    yield _threads()
    yield _writable("working directory", Path.cwd(), "change to a folder that you own")
    yield _writable("compilation cache", cache_folder(), "set XDG_CACHE_HOME, or use --no-compilation-cache")
    yield _writable("temporary files", Path(tempfile.gettempdir()), "set TMPDIR")
    yield from _extras()
    yield from _lock()


def _versions() -> Iterator[Check]:
    yield Check(PACKAGE, f"{_version(PACKAGE) or 'not installed'} ({Path(__file__).parents[1]})")
    yield Check("libraries", ", ".join(f"{name} {_version(name) or '-'}" for name in _SHOWN))
    missing = [text for extra, text in _unsatisfied() if extra is None]
    if missing:
        yield Check("requirements", ", ".join(missing), "problem", install_command())
    if _version("jaxlib") == jaxlib_guard.WRONG_VERSION:
        yield Check(
            "jaxlib",
            f"{jaxlib_guard.WRONG_VERSION} computes wrong matrix products on CPU",
            "problem",
            f"pip install 'jax!={jaxlib_guard.WRONG_VERSION}'",
        )


def _devices() -> Check:
    try:
        import jax

        devices = jax.devices()
    except Exception as error:  # any error of a driver or plug-in
        platforms = os.environ.get("JAX_PLATFORMS", "")
        return Check(
            "devices", first_line(error), "problem", f"unset JAX_PLATFORMS={platforms}, or {install_command('cuda')}"
        )
    kinds = {device.device_kind for device in devices}
    return Check("devices", f"{len(devices)} x {', '.join(sorted(kinds))} ({devices[0].platform})")


def _threads() -> Check:
    from block_recurrent.data.preparation.prepare import available_cores

    settings = [f"{name}={os.environ[name]}" for name in ("XLA_FLAGS", "OMP_NUM_THREADS") if name in os.environ]
    return Check("threads", ", ".join([f"{available_cores()} of {os.cpu_count()} cores usable", *settings]))


def _writable(name: str, folder: Path, remedy: str) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(name, f"{folder}: {first_line(error)}", "problem", remedy)
    value = f"{folder}, writable, {free / 1e9:,.1f} GB free"
    return Check(name, value, "note", "free some space") if free < _LEAST_FREE_BYTES else Check(name, value)


def _extras() -> Iterator[Check]:
    missing = list(_unsatisfied())
    for extra, purpose in _EXTRAS.items():
        lacking = [text for name, text in missing if name == extra]
        if lacking:
            yield Check(f"extra {extra}", f"{purpose}; missing: {', '.join(lacking)}", "note", install_command(extra))
        else:
            yield Check(f"extra {extra}", f"{purpose}; installed")


def _unsatisfied() -> Iterator[tuple[str | None, str]]:
    """Yields each requirement that is not installed in an allowed version, with its extra; None for the core's."""
    from packaging.requirements import Requirement

    try:
        listed = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield None, PACKAGE
        return
    for text in listed:
        requirement = Requirement(text)
        # jax[tpu] requires libtpu, jax[cuda13] its plug-in: the extra is there if the library is.
        library = {"tpu": "libtpu", "cuda13": "jax-cuda13-plugin"}.get("".join(requirement.extras), requirement.name)
        version = _version(library)
        extra = re.search(r"extra == ['\"](\w+)", text)
        found = version is not None and (library != requirement.name or version in requirement.specifier)
        if not found:
            name = extra[1] if extra else None
            yield name, f"{library} ({version or 'not installed'}; needs {requirement.specifier})"


def _lock() -> Iterator[Check]:
    """Compares the installed libraries with the tested versions, if this is a checkout."""
    lock = CHECKOUT / "requirements.lock"
    if not lock.exists():
        return
    pinned = re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE)
    other = [f"{name} {own} (tested: {version})" for name, version in pinned if (own := _version(name)) != version]
    other = [text for text in other if " None " not in text]
    if other:
        remedy = "pip install -c requirements.lock -e . for the tested versions"
        yield Check("tested versions", f"others installed: {', '.join(other)}", "note", remedy)
    else:
        yield Check("tested versions", "all installed libraries have the versions of requirements.lock")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
