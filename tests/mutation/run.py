"""Makes each fault of `mutations.py` in a copy of the checkout and runs its tests: `make mutation`.

`python -m tests.mutation.run WORD...` takes the faults whose names contain a word. The exit code is 1 if the tests miss
a fault, or if they fail without one.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutation.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
_PYTEST = ("-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", "-m")
_FAILED = 1  # pytest's exit code for a failed test; others mean that it did not run them


def copy_checkout(folder: Path) -> None:
    """Copies the files that git tracks or would track."""
    names = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(names, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())


def apply(mutation: Mutation, folder: Path) -> None:
    """Makes the fault in a copy.

    Raises:
        ValueError: the text does not occur exactly once.
    """
    path = folder / "block_recurrent" / mutation.file
    source = path.read_text()
    if source.count(mutation.text) != 1:
        raise ValueError(f"{mutation.file}: {mutation.text!r} occurs {source.count(mutation.text)} times, not once")
    path.write_text(source.replace(mutation.text, mutation.fault))


def run_tests(paths: tuple[str, ...], folder: Path) -> tuple[int, str]:
    """Runs tests up to the first failure; returns pytest's exit code and the failed test, or the end of the output.

    Of files, only the fast tests are run.
    """
    marked = "slow or not slow" if any("::" in path for path in paths) else "not slow"
    done = subprocess.run([sys.executable, *_PYTEST, marked, *paths], cwd=folder, capture_output=True, text=True)
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    return done.returncode, failed[1] if failed else (done.stdout + done.stderr)[-2000:]


def check(mutation: Mutation, folder: Path) -> bool:
    """Makes a fault, runs its tests, removes the fault and prints a line; returns whether a test found it."""
    path = folder / "block_recurrent" / mutation.file
    sound, began = path.read_text(), time.monotonic()
    apply(mutation, folder)
    try:
        code, shown = run_tests(mutation.tests, folder)
    finally:
        path.write_text(sound)
    verdict = "caught" if code == _FAILED else "MISSED" if code == 0 else f"pytest ended with {code}"
    print(f"{verdict:8} {time.monotonic() - began:6.1f} s  {mutation.name}  {shown if code else ''}", flush=True)
    return code == _FAILED


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="take the faults whose names contain one of these [default: all]")
    parser.add_argument("--skip-baseline", action="store_true", help="do not run the tests without a fault first")
    arguments = parser.parse_args()
    words = arguments.words
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    if not chosen:
        parser.error(f"no fault has {' or '.join(words)} in its name")
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        copy_checkout(folder)
        every = dict.fromkeys(path for mutation in chosen for path in mutation.tests)
        for single in (False, True):
            tests = tuple(path for path in every if ("::" in path) == single)
            code, shown = run_tests(tests, folder) if tests and not arguments.skip_baseline else (0, "")
            if code:
                print(f"the tests fail without a fault: {shown}")
                return 1
        caught = sum([check(mutation, folder) for mutation in chosen])
    print(f"{caught} of {len(chosen)} faults caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
