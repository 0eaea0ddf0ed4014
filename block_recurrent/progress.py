"""Progress of long work: a bar on a terminal, otherwise a line every 15 seconds, with the estimated time left."""

import time
from collections.abc import Callable
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

# Called with (units done, total); `StageCallback` also with the name of the stage, which comes first.
ProgressCallback: TypeAlias = Callable[[int, int], None]
StageCallback: TypeAlias = Callable[[str, int, int], None]

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Progress of one piece of work, as a context manager.

    The estimate of the time left begins after the first unit, which may contain a compilation.

    Args:
        description: name of the work.
        total: number of units.
        done: units done before; they do not count in the estimate of the time left.
        console: console to print to.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        description: str,
        total: int,
        *,
        done: int = 0,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._description = description
        self._total = total
        self._first = done
        self._console = console
        self._clock = clock
        self._last_line = clock()
        self._began: float | None = None  # end of the first unit
        self._bar = None
        if console.is_terminal:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
                TextColumn("{task.fields[facts]}"),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(description, total=total, completed=done, facts="")

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Shows the number of units done; the total may change. A `ProgressCallback`."""
        if total != self._total:
            self._total = total
            if self._bar is not None:
                self._bar.update(self._task, total=total)
        self.update(done)

    def update(self, done: int, facts: str = "") -> None:
        """Shows the number of units done, followed by `facts`."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, facts=facts)
            return
        now = self._clock()
        if self._began is None and done > self._first:
            self._began, self._first = now, done
        if now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        line = f"{self._description} {done:,}/{self._total:,}  "
        if self._began is not None and done > self._first:
            line += f"{_clock((now - self._began) / (done - self._first) * (self._total - done))} left  "
        line += facts
        self._console.print(line.rstrip(), highlight=False, soft_wrap=True)


class Stages:
    """Progress of work in consecutive stages, as a context manager; the size of a stage is known when it starts.

    Args:
        description: name of the work, printed before the name of each stage.
        console: console to print to.
        clock: returns the time in seconds.
    """

    def __init__(self, description: str, console: Console, clock: Callable[[], float] = time.monotonic):
        self._description, self._console, self._clock = description, console, clock
        self._stage: str | None = None
        self._progress: Progress | None = None

    def __enter__(self) -> "Stages":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Shows the number of units done in a stage; a new name starts a new stage. A `StageCallback`."""
        if stage != self._stage:
            self._end()
            description = f"{self._description}: {stage}"
            self._progress = Progress(
                description, total, done=done, console=self._console, clock=self._clock
            ).__enter__()
            self._stage = stage
        assert self._progress is not None
        self._progress.update(done)
        if done == total:
            self._end()

    def _end(self) -> None:
        if self._progress is not None:
            self._progress.__exit__()
        self._progress = self._stage = None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
