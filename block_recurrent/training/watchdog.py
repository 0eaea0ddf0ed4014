"""Notices a step that does not end."""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FACTOR = 20  # times the usual
_LEARN_FROM = 100  # steps
_FEWEST = 5  # steps before anything is usual


class Watchdog:
    """Reports, from a thread of its own, when a step takes 20 times the median of the last 100.

    Args:
        notify: called with a sentence: once per stall, in a sentence.
        least_seconds: shorter waits are never reported.
    """

    def __init__(self, notify: Callable[[str], None], *, least_seconds: float = 10.0):
        self._notify = notify
        self._least = least_seconds
        self._durations: deque[float] = deque(maxlen=_LEARN_FROM)
        self._step = 0
        self._last: float | None = None  # None while nothing is watched
        self._reported = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, step: int) -> None:
        """A step was done.

        Args:
            step: the one that begins now.
        """
        now = time.monotonic()
        if self._last is not None:
            self._durations.append(now - self._last)
        self._step, self._last, self._reported = step, now, False

    @contextmanager
    def resting(self) -> Iterator[None]:
        """While something other than a step is done, nothing is watched."""
        self._last = None
        yield
        self._last = None

    def _watch(self) -> None:
        while not self._ended.wait(min(self._least / 4, 1.0)):
            began, durations = self._last, list(self._durations)
            if began is None or self._reported or len(durations) < _FEWEST:
                continue
            usual, waited = statistics.median(durations), time.monotonic() - began
            if waited > max(_FACTOR * usual, self._least):
                self._reported = True
                self._notify(
                    f"step {self._step} has been going on for {waited:.0f} s, {waited / usual:.0f} times the usual "
                    f"{usual:.2f} s: a hung device, another process that is gone, or a stalled file system"
                )

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
