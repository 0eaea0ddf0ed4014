"""Where a run's numbers go: TensorBoard event files, and the same as JSON lines."""

import json
from typing import Any

from etils import epath
from tensorboardX import SummaryWriter

_FILE = "metrics.jsonl"


class MetricsWriter:
    """Writes `metrics.jsonl` and TensorBoard events into a workdir.

    Args:
        workdir: the run's folder.
        step: the step the run continues from. What a killed run wrote for later steps is dropped, so that the record
            reads like that of an uninterrupted run.
    """

    def __init__(self, workdir: epath.Path, *, step: int):
        self._path = workdir / _FILE
        kept = [line for line in read_metrics(workdir) if _precedes(line, step)]
        partial = workdir / f"{_FILE}.partial"
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        partial.replace(self._path)
        self._file = self._path.open("a")
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step or None)

    def write(self, step: int, group: str, values: dict[str, Any]) -> None:
        """Appends one line, `{"step": ..., "group": ..., **values}`; its numbers also go to TensorBoard.

        Args:
            step: steps taken when the numbers were true.
            group: `train`, or the name of an evaluated split.
            values: numbers and texts by name; names carry the unit.
        """
        self._file.write(json.dumps({"step": step, "group": group, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._events.add_scalar(f"{group}/{name}", value, step)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        """Flushes and closes both files."""
        self._file.close()
        self._events.close()


def read_metrics(workdir: epath.Path) -> list[dict[str, Any]]:
    """All lines of a run's `metrics.jsonl`; empty if there is none. A torn last line (a killed run's) is left out."""
    path = workdir / _FILE
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def _precedes(line: dict[str, Any], step: int) -> bool:
    """A checkpoint of step s is written after step s was logged and evaluated (see `train.train`)."""
    return line["step"] <= step if step else False
