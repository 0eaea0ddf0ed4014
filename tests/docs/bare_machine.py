"""A bare machine for the documentation's commands: a fresh copy of the checkout, a fresh HOME, the system's PATH."""

import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.docs.documented import ROOT

# The package index, proxies and certificates are the machine's, and nothing else is passed on.
_KEPT = ("PIP_", "UV_", "SSL_", "REQUESTS_CA_BUNDLE", "LANG", "LC_", "http_proxy", "https_proxy", "no_proxy")
_PIP_SETTINGS = (".config/pip/pip.conf", ".pip/pip.conf")


@dataclasses.dataclass(frozen=True)
class Ended:
    """A command that was run.

    Attributes:
        code: exit code; None if the command was cut off.
        seconds: time that it took.
        output: standard output and error.
    """

    code: int | None
    seconds: float
    output: str


class BareMachine:
    """Runs commands as a reader who pastes them.

    Args:
        folder: an empty folder for the copy, HOME and temporary files.
    """

    def __init__(self, folder: Path):
        self.clone, self._home, self._logs = folder / "block-recurrent", folder / "home", folder / "logs"
        for path in (self.clone, self._home, self._logs):
            path.mkdir(parents=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.clone / name)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a new shell."""
        kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
        path = [part for part in os.environ["PATH"].split(":") if not Path(part).is_relative_to(ROOT)]
        own = os.environ.get("VIRTUAL_ENV")
        path = [part for part in path if own is None or not Path(part).is_relative_to(own)]
        for name in _PIP_SETTINGS:
            if (Path.home() / name).exists():
                kept.setdefault("PIP_CONFIG_FILE", str(Path.home() / name))
        return kept | {"HOME": str(self._home), "PATH": ":".join(path), "TERM": "dumb", "COLUMNS": "120"}

    def paste(self, page: str, commands: Sequence[str], limit: float) -> Iterator[Ended]:
        """Pastes commands into one new shell, and yields each when it has ended.

        Args:
            page: name of the page, for files.
            commands: texts of commands.
            limit: longest time of one command in seconds; the shell ends with a command that takes longer.
        """
        folder = self._logs / page.replace("/", "_")
        folder.mkdir()
        script = []
        for number, command in enumerate(commands):
            script += [f"exec >{folder}/{number}.out 2>&1", command, f'echo "$?" >{folder}/{number}.code']
        (folder / "script.sh").write_text("\n".join(script) + "\n")
        shell = subprocess.Popen(
            ["bash", str(folder / "script.sh")],
            cwd=self.clone, env=self.environment, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            for number in range(len(commands)):
                yield _wait(shell, folder / f"{number}.code", folder / f"{number}.out", limit)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


def _wait(shell: subprocess.Popen, code: Path, output: Path, limit: float) -> Ended:
    began = time.monotonic()
    while not code.exists() or not code.read_text().endswith("\n"):
        seconds = time.monotonic() - began
        if shell.poll() is not None and not code.exists():
            break
        if seconds > limit:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
            break
        time.sleep(0.05)
    text = output.read_text(errors="replace") if output.exists() else "(the shell had ended before)"
    found = code.read_text().strip() if code.exists() else ""
    return Ended(int(found) if found else None, time.monotonic() - began, text)
