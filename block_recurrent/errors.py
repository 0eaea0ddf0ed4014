"""Errors that end a command, each with an exit code of its own for launchers."""

from pathlib import Path
from signal import SIGTERM


class InputError(ValueError):
    """The input is wrong; the message names the file, field or flag, its value and the allowed values. Exit code 2."""


class NonFiniteError(RuntimeError):
    """A loss or gradient was not finite, and `TrainConfig.nonfinite` is `stop`. Exit code 3."""


class MissingProcessError(RuntimeError):
    """Another process of the run is missing; restarting all processes continues the run. Exit code 4."""


class PreemptedError(RuntimeError):
    """The run was asked to stop and saved a checkpoint; restarting continues it. Exit code 75, `EX_TEMPFAIL`.

    The command line ends with exit code 130 after SIGINT, and 141 if the reader of standard output is gone.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, message: str, signal: int = SIGTERM):
        super().__init__(message)
        self.signal = signal


EXIT_CODES: dict[type[Exception], int] = {InputError: 2, NonFiniteError: 3, MissingProcessError: 4, PreemptedError: 75}


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, at most 300 characters; the name of its class if there is none."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def install_command(extra: str | None = None) -> str:
    """Returns the command that installs the package, with an extra if one is named; in a checkout from its folder."""
    brackets = f"[{extra}]" if extra else ""
    checkout = Path(__file__).parents[1]
    if (checkout / "setup.py").exists():
        return f"pip install -e '{checkout}{brackets}'"
    return f"pip install 'block-recurrent{brackets}'"
