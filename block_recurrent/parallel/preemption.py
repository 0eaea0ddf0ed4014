"""Requests to stop: SIGTERM from a scheduler, Ctrl-C from a person."""

import signal
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Notices SIGTERM and SIGINT while its context is open, so that the loop can save before it stops.

    The first signal of each kind restores the previous handler, so a second one acts as if no `Preemption` were open.
    With several processes jax's coordination service handles SIGTERM, and all processes agree on the step.

    Attributes:
        signal: number of the last signal; SIGTERM before the first.
    """

    def __init__(self) -> None:
        self._requested = False
        self.signal: int = signal.SIGTERM
        self._previous: dict[int, Any] = {}
        self._sync_points = 0

    def requested(self) -> bool:
        """Returns whether to stop now. With several processes, every process must call this equally often."""
        if jax.process_count() == 1:
            return self._requested
        self._sync_points += 1
        return multihost_utils.reached_preemption_sync_point(self._sync_points)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        self.signal = number
        signal.signal(number, self._previous[number])

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1:
            self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        """Restores the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
