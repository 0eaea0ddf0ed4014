"""Shows where the time of a step goes: `python -m experiments.benchmarks.profile train_step medium`.

Runs the step some times with JAX's profiler, and sums the time of XLA's operations by kind in the fastest step.
Operations that run at the same time count twice, so that the sum may exceed the time of the step.
"""

import argparse
import collections
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from jax.profiler import ProfileData

from experiments.benchmarks.configurations import SIZES
from experiments.benchmarks.speed import job
from experiments.benchmarks.turns import COMMAND_ENVIRONMENT, Worker

# The jitted function of each task, as XLA names it.
PROGRAMS = {"train_step": "train_step", "eval_step": "eval_step", "prefill": "prefill", "decode": "sample_tokens"}
# The first pattern that an operation's name matches; XLA names a fusion after what it fuses.
KINDS = {
    "matrix products": r"ynn_fusion|dot",
    "sums and other reductions": r".*reduce",
    "copies, transposes, joins": r".*(copy|transpose|concatenate|pad|slice|broadcast)",
    "exponentials": r".*exponential",
    "other element-wise operations": r"",
}


class Operation(NamedTuple):
    """Shape of an operation of the compiled program, and the part of the model that it belongs to."""

    shape: str
    origin: str


def traced_step(size: str, task: str, folder: Path) -> None:
    """Runs a step in a process of its own; writes profiles and the compiled program to a folder."""
    flags = f"--xla_dump_to={folder} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=jit_{PROGRAMS[task]}"
    described = job(SIZES[size], task) | {"trace": str(folder)}
    Worker(size, "step.py", described, environment=COMMAND_ENVIRONMENT | {"XLA_FLAGS": flags}).stop()


def read_program(folder: Path) -> dict[str, Operation]:
    """Returns the operations of the compiled program by name."""
    path = max(folder.glob("*after_optimizations.txt"), key=lambda path: path.stat().st_size)
    found = {}
    for line in path.read_text().splitlines():
        if match := re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(?[a-z0-9]+\[[^\]]*\])", line):
            origin = re.search(r'op_name="(?:jit\(\w+\)/)?([^"]*)"', line)
            found[match[1]] = Operation(match[2], origin[1] if origin else "")
    return found


def read_times(profile: Path, program: dict[str, Operation]) -> collections.Counter[str]:
    """Returns the milliseconds of each operation in a profile, without those of operations inside it."""
    times: collections.Counter[str] = collections.Counter()
    for plane in ProfileData.from_file(str(profile)).planes:
        for line in plane.lines:
            events = sorted((event.start_ns, -event.duration_ns, event.name) for event in line.events)
            outer: list[tuple[float, str]] = []
            for start, negative, name in events:
                while outer and outer[-1][0] <= start:
                    outer.pop()
                if outer:
                    times[outer[-1][1]] += negative / 1e6
                times[name] -= negative / 1e6
                outer.append((start - negative, name))
    return collections.Counter({name: time for name, time in times.items() if name in program})


def kind_of(name: str) -> str:
    return next(kind for kind, pattern in KINDS.items() if re.match(pattern, name))


def main() -> None:
    parser = argparse.ArgumentParser(description="Shows where the time of a step goes.")
    parser.add_argument("task", choices=list(PROGRAMS))
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("--top", type=int, default=20, help="Number of single operations to show.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        traced_step(arguments.size, arguments.task, Path(name))
        program = read_program(Path(name))
        profiles = [read_times(path, program) for path in Path(name).glob("plugins/profile/*/*.xplane.pb")]
    times = min(profiles, key=collections.Counter.total)  # the fastest step
    kinds: collections.Counter[str] = collections.Counter()
    for name, time in times.items():
        kinds[kind_of(name)] += time
    for kind, time in kinds.most_common():
        print(f"{time:9.1f} ms  {time / times.total():4.0%}  {kind}")
    print()
    for name, time in times.most_common(arguments.top):
        print(f"{time:9.2f} ms  {name:28} {program[name].shape:28} {program[name].origin[-60:]}")


if __name__ == "__main__":
    main()
