"""A watchdog that reports a step that does not end."""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FACTOR = 20  # times the usual duration
_HISTORY = 100  # steps
_FEWEST = 5  # steps before a duration is usual


class Watchdog:
    """Reports, from its own thread, when a step takes 20 times the median of the last 100 steps.

    Args:
        notify: called with one sentence for each step that does not end.
        least_seconds: shorter waits are never reported.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        notify: Callable[[str], None],
        *,
        least_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._notify = notify
        self._least = least_seconds
        self._clock = clock
        self._durations: deque[float] = deque(maxlen=_HISTORY)
        self._step = 0
        self._last: float | None = None  # None while no step is watched
        self._reported = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, step: int) -> None:
        """Ends the step before and starts to watch the next.

        Args:
            step: the step that starts now.
        """
        now = self._clock()
        if self._last is not None:
            self._durations.append(now - self._last)
        self._step, self._last, self._reported = step, now, False

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Watches nothing from here until the next `beat`: the loop is busy with something other than a step."""
        self._last = None
        yield
        self._last = None

    def check(self) -> None:
        """Reports the step in progress if it takes too long, once. The thread calls this at least once a second."""
        started, durations = self._last, list(self._durations)
        if started is None or self._reported or len(durations) < _FEWEST:
            return
        usual, waited = statistics.median(durations), self._clock() - started
        if waited > max(_FACTOR * usual, self._least):
            self._reported = True
            self._notify(
                f"step {self._step} has been running for {waited:.0f} s, {waited / usual:.0f} times the usual "
                f"{usual:.2f} s: a hung device, a lost process, or a stalled file system"
            )

    def _watch(self) -> None:
        while not self._ended.wait(min(self._least / 4, 1.0)):
            self.check()

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
