"""Metrics of a run as JSON lines and as TensorBoard events."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from typing import Any

from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from block_recurrent.files import is_remote, write_whole

_FILE = "metrics.jsonl"
_SECONDS_BETWEEN_UPLOADS = 60.0
_OLD_NAME = re.compile(r"^(gate/[^/]+/[^/]+)/admit$")


class MetricsWriter:
    """Writes `metrics.jsonl` and TensorBoard events into a workdir.

    A full disk does not stop the run: lines that cannot be written are written later. TensorBoard events are lost.

    Attributes:
        kept: lines of an earlier start that remain valid.

    Args:
        workdir: the run's folder.
        step: the step that the run continues from. Lines of later steps are dropped, so that the file equals that of
            an uninterrupted run.
        notify: called with one sentence when lines cannot be written and when they can be written again.
        also: called with the arguments of each `write`; see `tracker.tracked`.
    """

    def __init__(
        self,
        workdir: epath.Path,
        *,
        step: int,
        notify: Callable[[str], None] = lambda message: None,
        also: Callable[[int, str, dict[str, Any]], None] = lambda step, group, values: None,
    ):
        self.kept = [line for line in read_metrics(workdir) if _precedes(line, step)]
        self._path = workdir / _FILE
        self._remote = is_remote(workdir)
        content = "".join(map(_as_text, self.kept))
        write_whole(self._path, content)
        self._uploads = [content] if self._remote else []  # object stores cannot append
        self._waiting: list[str] = []
        self._failing = False
        self._uploaded = time.monotonic()
        self._events = _Events(workdir / "tensorboard", first_step=step)
        self._notify, self._also = notify, also

    def write(self, step: int, group: str, values: dict[str, Any]) -> None:
        """Appends one line, `{"step": ..., "group": ..., **values}`; its numbers also go to TensorBoard.

        Args:
            step: number of steps taken.
            group: `train`, `speed` (metrics that depend on the machine), or the name of an evaluated split.
            values: numbers and texts by name; names contain the unit.
        """
        self._events.write(step, group, values)
        self._waiting.append(_as_text({"step": step, "group": group, **values}))
        try:
            self._flush()
        except OSError as error:
            if not self._failing:
                self._notify(
                    f"{self._path}: cannot be written ({error.strerror or error}); lines are kept and written later"
                )
            self._failing = True
        else:
            if self._failing:
                self._notify(f"{self._path}: written again; no line is missing")
            self._failing = False
        self._also(step, group, values)

    def _flush(self, *, at_end: bool = False) -> None:
        if self._remote:
            if at_end or time.monotonic() - self._uploaded > _SECONDS_BETWEEN_UPLOADS:
                self._path.write_text("".join(self._uploads + self._waiting))
                self._uploads, self._uploaded = self._uploads + self._waiting, time.monotonic()
                self._waiting = []
            return
        content = "".join(self._waiting).encode()
        with open(self._path, "ab", buffering=0) as file:
            length = file.tell()
            try:
                written = file.write(content)
                if written != len(content):
                    raise OSError("no space left for the whole line")
            except OSError:
                os.ftruncate(file.fileno(), length)  # removes the torn line
                raise
        self._waiting = []

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        """Writes the waiting lines and closes both files."""
        with contextlib.suppress(OSError):
            self._flush(at_end=True)
        self._events.close()


class _Events:
    """TensorBoard event file; after a failure the next event starts a new file.

    tensorboardX's `SummaryWriter` is not used: it writes from a thread that a full disk ends, and its full queue then
    blocks the training loop.
    """

    def __init__(self, folder: epath.Path, *, first_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._prefix = str(folder / "events")
        self._writer: EventsWriter | None = None
        self._first_step = first_step

    def write(self, step: int, group: str, values: dict[str, Any]) -> None:
        summaries = [
            scalar(f"{group}/{name}", value)
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        try:
            if self._writer is None:
                self._writer = EventsWriter(self._prefix)
                # TensorBoard drops an interrupted run's events from this step on.
                self._writer.write_event(Event(wall_time=time.time(), step=self._first_step, session_log={"status": 1}))
            for summary in summaries:
                self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._writer.flush()
        except OSError:
            self.close()

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()


def read_metrics(workdir: epath.Path) -> list[dict[str, Any]]:
    """Returns all lines of a run's `metrics.jsonl`; empty if there is no such file.

    A torn last line, left by a killed run, is left out. Metrics have the names of this version.
    """
    path = workdir / _FILE
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(with_current_names(json.loads(line)))
        except json.JSONDecodeError:
            break
    return lines


def with_current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Renames the metrics that version 0.1.0 wrote under another name: `gate/LAYER/PLACE/admit` is now `.../input`."""
    return {_OLD_NAME.sub(r"\1/input", name): value for name, value in values.items()}


def _as_text(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"


def _precedes(line: dict[str, Any], step: int) -> bool:
    """A checkpoint of step s is saved after step s was logged and evaluated (see `loop.Loop.run`)."""
    return line["step"] <= step if step else False
