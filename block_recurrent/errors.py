"""What ends a command, each with an exit code that a launcher can tell apart."""


class InputError(ValueError):
    """The caller can correct it: says what was wrong, where (file, field, value) and what is allowed. Exit code 2."""


class NonFiniteError(RuntimeError):
    """A loss or gradient was not finite, and the run was told to stop then. Exit code 3."""


class MissingProcessError(RuntimeError):
    """Another process of the run did not come or is gone; starting all of them again continues. Exit code 4."""


class PreemptedError(RuntimeError):
    """The run was asked to end, has saved everything and can be started again. Exit code 75, `EX_TEMPFAIL`."""


EXIT_CODES: dict[type[Exception], int] = {InputError: 2, NonFiniteError: 3, MissingProcessError: 4, PreemptedError: 75}


def first_line(error: BaseException) -> str:
    """The first line of another library's message, at most 300 characters; the error's class if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
