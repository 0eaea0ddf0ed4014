"""A clock that a test sets, so that no test sleeps."""


class Clock:
    """Returns `seconds` when it is called."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds
