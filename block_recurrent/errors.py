"""The one exception a person can correct: the command line prints it without a traceback and exits with 2."""


class InputError(ValueError):
    """Something the caller gave is wrong.

    The message names what was wrong, where (file, field, value) and what is allowed.
    """
