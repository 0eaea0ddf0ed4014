"""Experiment trackers: services that receive the lines of `metrics.jsonl` while a run trains. Off by default."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

from etils import epath

from block_recurrent.config import RunConfig
from block_recurrent.errors import first_line


class Tracker(Protocol):
    """A tracker of one run; `registry.TRACKERS.register` gives a class its name for `train --tracker`."""

    def __init__(self, run: RunConfig, workdir: epath.Path):
        """Starts or continues the run's entry in the tracker.

        Args:
            run: the configuration.
            workdir: the run's folder.
        """
        ...

    def write(self, step: int, group: str, values: dict[str, Any]) -> None:
        """Receives one line of `metrics.jsonl`; see `MetricsWriter.write`."""
        ...

    def close(self) -> None:
        """Called once at the end of the run, also if it fails."""
        ...


MakeTracker: TypeAlias = Callable[[RunConfig, epath.Path], Tracker]
WriteLine: TypeAlias = Callable[[int, str, dict[str, Any]], None]


@contextlib.contextmanager
def tracked(
    make: MakeTracker | None, run: RunConfig, workdir: epath.Path, notify: Callable[[str], None]
) -> Iterator[WriteLine]:
    """Starts a tracker, and closes it at the end.

    Args:
        make: creates the tracker; None for no tracker.
        run: the configuration.
        workdir: the run's folder.
        notify: called with one sentence when the tracker fails.

    Yields:
        A function that passes a line to the tracker. The first failure ends the tracking, not the run.
    """
    tracker: Tracker | None = None if make is None else make(run, workdir)

    def write(step: int, group: str, values: dict[str, Any]) -> None:
        nonlocal tracker
        if tracker is None:
            return
        try:
            tracker.write(step, group, values)
        except Exception as error:  # a service's own classes
            notify(f"the tracker failed ({first_line(error)}); it receives nothing more, metrics.jsonl has every line")
            failed, tracker = tracker, None
            with contextlib.suppress(Exception):
                failed.close()

    try:
        yield write
    finally:
        if tracker is not None:
            try:
                tracker.close()
            except Exception as error:
                notify(f"the tracker could not be closed ({first_line(error)}); metrics.jsonl has every line")
